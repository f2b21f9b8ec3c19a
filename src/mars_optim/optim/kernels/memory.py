"""Whether kernels may walk through the memory of tensors together, and making it so.

A kernel is given addresses and the parameter's number of elements: everything else is asked here,
of every tensor that it is given.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..reference import State
from ..sharded import PLAIN

BUFFERS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "last_grad")
LAZY = (
    "is a lazy conjugate or negative of other memory: make it one of its own by "
    "x.resolve_conj().resolve_neg()"
)
CHANGED = (
    "where a parameter has changed in a run, make its gradient and its state anew (zero_grad(), "
    "optimizer.state.pop(parameter))"
)


class MisfitError(ValueError):
    """A gradient or a state that no path can use for its parameter.

    Args:
        index: of the parameter in its bucket.
        reason: a sentence that begins after the parameter's name.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"parameter number {index} {reason}")
        self.index, self.reason = index, reason


def unlike(x: Tensor, others: list[Tensor]) -> str | None:
    """Why the elements of these cannot be walked through together, in the order of memory."""
    shape, on_cpu, contiguous = x.shape, x.is_cpu, True
    tracing = torch.compiler.is_compiling()  # what a bit means is torch.compile's care
    for tensor in (x, *others):
        if type(tensor) not in PLAIN:
            return f"{type(tensor).__name__} tensors need the multi-tensor path"
        if tensor.shape != shape:
            return "a gradient or state has another shape than its parameter"
        if tensor.is_cpu is not on_cpu or (not on_cpu and tensor.device != x.device):
            return "a gradient or state is on another device than its parameter"
        if tensor.layout is not torch.strided:
            return f"layout {tensor.layout} needs the multi-tensor path"
        if not tracing and tensor.is_neg():
            return "a parameter, gradient or state is a lazy negative"
        contiguous = contiguous and tensor.is_contiguous()
    if contiguous:
        return None
    if any(t.stride() != x.stride() for t in others):
        return "a parameter and its gradient or state differ in their layout"
    return None if is_dense(x) else "a parameter has gaps or overlaps in memory"


def is_dense(x: Tensor) -> bool:
    """Whether the elements lie side by side in some order of the dimensions: no gap, no overlap."""
    if x.is_contiguous():
        return True
    size = 1
    for stride, length in sorted(zip(x.stride(), x.shape, strict=True)):
        if length != 1 and stride != size:
            return False
        size *= length
    return True


def lay_out(
    params: list[Tensor], grads: list[Tensor], states: list[State], *, keep: bool = False
) -> bool:
    """Give state that lies in memory otherwise than its parameter the parameter's order.

    Asked where no fast kernel is taken, before anything is written: the state of a channels-last
    model may have to go on with contiguous weights.

    Args:
        params: all of one dtype.
        grads: theirs, only looked at.
        states: theirs, changed.
        keep: only look at state, too.

    Returns:
        Whether any state was laid out anew, so that a fast kernel may take it now.

    Raises:
        MisfitError: for what is wrong on any path.
    """
    changed = False
    keep = keep or torch.compiler.is_compiling()  # a graph knows strides
    for i, (x, g, state) in enumerate(zip(params, grads, states, strict=True)):
        buffers = {name: state[name] for name in BUFFERS if name in state}
        if not torch.compiler.is_compiling() and (x.is_neg() or x.is_conj()):
            raise MisfitError(i, LAZY)
        if reason := misfit(x, {"gradient": g, **buffers}):
            raise MisfitError(i, f"{reason}: {CHANGED}")
        for name, kept in buffers.items() if not keep else ():
            if not _lies_well(kept, x):
                state[name] = torch.zeros_like(x, dtype=kept.dtype).copy_(kept)
                changed = True
    return changed


def misfit(x: Tensor, others: dict[str, Tensor]) -> str | None:
    """What is wrong on any path with tensors that belong to ``x``, or None.

    Args:
        x: the parameter, or this process's shard of it.
        others: by what they are called.
    """
    for name, tensor in others.items():
        if reason := of_another_kind(x, name, tensor):
            return reason
        if tensor.device != x.device:
            return f"is on {x.device} and its {name} on {tensor.device}"
    return None


def of_another_kind(x: Tensor, name: str, tensor: Tensor) -> str | None:
    """How a tensor differs from its parameter in what is not repaired on any path, or None."""
    if tensor.shape != x.shape:
        return f"has shape {tuple(x.shape)} and its {name} {tuple(tensor.shape)}"
    if tensor.is_complex() != x.is_complex() or not (
        tensor.is_complex() or tensor.is_floating_point()
    ):
        return f"has dtype {x.dtype} and its {name} {tensor.dtype}"
    if tensor.layout is not torch.strided:
        return f"has a {name} of layout {tensor.layout}, which has no strides to walk by"
    return None


def _lies_well(kept: Tensor, x: Tensor) -> bool:
    """Whether state has the memory order of ``x``, or its own where ``x`` has gaps or overlaps."""
    if type(kept) not in PLAIN:
        return True
    if kept.is_neg() or kept.is_conj():
        return False
    if (kept.is_contiguous() and x.is_contiguous()) or kept.stride() == x.stride():
        return is_dense(kept)
    return not is_dense(x) and is_dense(kept)

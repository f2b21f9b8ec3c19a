"""Whether kernels may walk through the memory of tensors together, and making it so.

A kernel is given addresses and the parameter's number of elements: everything else is asked here,
of every tensor that it is given.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..distributed.sharded import PLAIN
from ..types import BUFFERS
from .base import Bucket

PLAIN_TYPES = frozenset(PLAIN)
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


def columns_of(bucket: Bucket) -> dict[str, list[Tensor]] | None:
    """All that a step touches but the counters, by name; None if some lack what others have."""
    states = bucket.states
    names = [name for name in BUFFERS if name in states[0]]
    absent = [name for name in BUFFERS if name not in names]
    for state in states:
        for name in absent:
            if name in state:
                return None
    try:
        columns = {name: [state[name] for state in states] for name in names}
    except KeyError:
        return None
    return {"parameter": bucket.params, "gradient": bucket.grads, **columns}


def unlike(columns: dict[str, list[Tensor]], *, in_order: bool = False) -> str | None:
    """Why the elements of a row of these cannot be walked through together, in memory's order.

    Column by column, for every step comes by: an attribute of a tensor costs more than Python.

    Args:
        columns: see :func:`columns_of`.
        in_order: whether memory's order must be that of the dimensions (default: False).
    """
    params = columns["parameter"]
    shapes, on_cpu = [x.shape for x in params], params[0].is_cpu
    tracing = torch.compiler.is_compiling()  # what a bit means is torch.compile's care
    contiguous = True
    for name, column in columns.items():
        if strange := {type(t) for t in column} - PLAIN_TYPES:
            return f"{strange.pop().__name__} tensors need the multi-tensor path"
        if column is not params and [t.shape for t in column] != shapes:
            return f"a {name} has another shape than its parameter"
        if {t.is_cpu for t in column} != {on_cpu} or (
            not on_cpu and {t.device for t in column} != {params[0].device}
        ):
            return f"a {name} is on another device than its parameter"
        if not tracing and True in [t.is_neg() for t in column]:
            return f"a {name} is a lazy negative"
        try:
            contiguous = contiguous and False not in [t.is_contiguous() for t in column]
        except RuntimeError:  # sparse and other layouts have no strides
            return f"a {name} of another layout than torch.strided needs the multi-tensor path"
    if contiguous:
        return None
    return "a tensor is not contiguous" if in_order else _otherwise_ordered(columns)


def _otherwise_ordered(columns: dict[str, list[Tensor]]) -> str | None:
    """The same where some are not contiguous: none may have gaps, and a row must have one order."""
    for x, *others in zip(*columns.values(), strict=True):
        if x.is_contiguous() and all(t.is_contiguous() for t in others):
            continue
        if any(t.stride() != x.stride() for t in others):
            return "a parameter and its gradient or state differ in their layout"
        if not is_dense(x):
            return "a parameter has gaps or overlaps in memory"
    return None


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


def lay_out(bucket: Bucket, *, keep: bool = False) -> bool:
    """Give state that lies in memory otherwise than its parameter the parameter's order.

    Asked where no fast kernel is taken, before anything is written: the state of a channels-last
    model may have to go on with contiguous weights.

    Args:
        bucket: its state is changed.
        keep: only look (default: False, only where it is of shards).

    Returns:
        Whether any state was laid out anew, so that a fast kernel may take it now.

    Raises:
        MisfitError: for what is wrong on any path.
    """
    columns = columns_of(bucket)
    if columns and unlike(columns) is None and _floating(columns):
        return False
    changed = False
    # a graph knows strides
    keep = keep or bucket.shards is not None or torch.compiler.is_compiling()
    rows = zip(bucket.params, bucket.grads, bucket.states, strict=True)
    for i, (x, g, state) in enumerate(rows):
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
    """Defect of tensors that belong to ``x``, on any path, or None.

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


def _floating(columns: dict[str, list[Tensor]]) -> bool:
    """Whether all are real numbers, rather than whole or complex ones."""
    dtypes = {tensor.dtype for column in columns.values() for tensor in column}
    return all(dtype.is_floating_point for dtype in dtypes)


def _lies_well(kept: Tensor, x: Tensor) -> bool:
    """Whether state has the memory order of ``x``, or its own where ``x`` has gaps or overlaps."""
    if type(kept) not in PLAIN:
        return True
    if kept.is_neg() or kept.is_conj():
        return False
    if (kept.is_contiguous() and x.is_contiguous()) or kept.stride() == x.stride():
        return is_dense(kept)
    return not is_dense(x) and is_dense(kept)

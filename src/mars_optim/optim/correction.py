"""From the gradient to the variance-reduced gradient c_t and its clip.

Multi-tensor: every argument is a list with one tensor per parameter, all of one device and dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .distributed.sharded import Shards
from .hyperparameters import Settings

# Above this size a float32 norm on a CPU loses digits (2.7e-3 at 38 M elements).
_NORM_CHUNK = 1 << 20


def corrected_(
    last_grads: list[Tensor], grads: list[Tensor], *, gain: float | Tensor
) -> list[Tensor]:
    """c_t = g_t + k (g_t - g_{t-1}), written over g_{t-1} (paper eq. 3.2, Remark 3.3).

    Args:
        last_grads: g_{t-1}; holds c_t afterwards. Call :func:`remember_` once c_t is used up.
        grads: g_t, only read.
        gain: k = gamma * beta1 / (1 - beta1).
    """
    if isinstance(gain, Tensor):  # only the device knows it
        torch._foreach_sub_(last_grads, grads)
        torch._foreach_mul_(last_grads, -gain.to(grads[0].dtype))
        torch._foreach_add_(last_grads, grads)
        return last_grads
    # lerp(g_prev, g, 1 + k) = g + k (g - g_prev): one pass, no temporary
    torch._foreach_lerp_(last_grads, grads, 1.0 + gain)
    return last_grads


def folded(averages: list[Tensor], grads: list[Tensor], gamma: float | Tensor) -> list[Tensor]:
    """(1 - gamma) EMA(g)_t + gamma g_t, as new tensors."""
    if isinstance(gamma, Tensor):
        ms = torch._foreach_sub(grads, averages)
        torch._foreach_mul_(ms, gamma.to(grads[0].dtype))
        torch._foreach_add_(ms, averages)
        return list(ms)
    return list(torch._foreach_lerp(averages, grads, gamma))


def remember_(last_grads: list[Tensor], grads: list[Tensor]) -> None:
    """g_{t-1} <- g_t, by copy: p.grad may be zeroed, reused or overwritten by its owner."""
    torch._foreach_copy_(last_grads, grads)


class GlobalNorm:
    """||c_t||_2 over all tensors of all groups with ``clip_over="global"``, for one step.

    Found when the first of them is stepped, before any of their gradients is forgotten.
    """

    def __init__(self) -> None:
        self._parts: list[Callable[[], Tensor]] = []
        self._norm: Tensor | None = None

    def add(
        self,
        grads: list[Tensor],
        states: list[dict[str, Tensor]],
        settings: Settings,
        shards: Shards | None,
    ) -> None:
        """Count these tensors in, or this process's shards of them; as the step will see them."""
        self._parts.append(partial(_sum_of_squares, grads, states, settings, shards))

    def of(self, tensors: list[Tensor]) -> Tensor:
        """The norm, once for each of ``tensors``, (tensors,) on their device."""
        if self._norm is None:
            parts = [part() for part in self._parts]
            self._norm = torch.stack([part.to(parts[0].device) for part in parts]).sum().sqrt()
        return self._norm.to(tensors[0].device).expand(len(tensors))


def _sum_of_squares(
    grads: list[Tensor],
    states: list[dict[str, Tensor]],
    settings: Settings,
    shards: Shards | None,
) -> Tensor:
    """|c_t|^2 over these tensors, 0-d; one temporary of a tensor's size at a time."""
    norms = []
    for g, state in zip(grads, states, strict=True):
        c = g.to(torch.promote_types(g.dtype, torch.float32))
        if settings.takes_difference:
            last_grad = state["last_grad"]
            dtype = torch.promote_types(c.dtype, last_grad.dtype)
            c = c.to(dtype) + settings.gain * (c.to(dtype) - last_grad.to(dtype))
        norms.append(tensor_norm(c))
    total: Tensor = whole_norms(torch.stack(norms), shards).square().sum()
    return total


def whole_norms(norms: Tensor, shards: Shards | None) -> Tensor:
    """Norms of whole tensors from those of this process's shards, (tensors,)."""
    return norms if shards is None else shards.whole_norms(norms)


def clip_norms(norms: Tensor, settings: Settings, shards: Shards | None = None) -> Tensor:
    """Norm that the clip of each tensor looks at: its own ||c||, or that of all.

    Args:
        norms: (tensors,), of this process's shards; these tensors are all there are.
        settings: of the group.
        shards: of which whole tensors these are shards.
    """
    norms = whole_norms(norms, shards)
    if settings.clips_together:
        norms = torch.linalg.vector_norm(norms).expand(len(norms))
    return norms


def scales_of(norms: Tensor, clip: float) -> Tensor:
    """min(1, clip / norm), 1 for a norm of 0, NaN for NaN."""
    return (clip / norms).clamp(max=1.0)


def clipped(cs: list[Tensor], scales: Tensor, *, in_place: bool) -> list[Tensor]:
    """c~_t = c_t * min(1, clip / ||c_t||), per tensor (paper eq. 3.3).

    A norm of 0 leaves its tensor as it is, one of NaN makes it NaN.

    Args:
        cs: c_t; changed and returned with ``in_place``, else left as they are.
        scales: (tensors,), see :func:`scales_of`.
    """
    factors = list(scales.to(cs[0].dtype).unbind())
    chosen = list(range(len(cs)))
    on_cpu = cs[0].device.type == "cpu" and not torch.compiler.is_compiling()
    if on_cpu:  # reading a scale costs nothing here, a pass over c does
        chosen = [i for i, scale in enumerate(factors) if scale != 1.0]  # NaN too
    if not chosen:
        return cs
    large, factors = [cs[i] for i in chosen], [factors[i] for i in chosen]
    if in_place:
        torch._foreach_mul_(large, factors)
        return cs
    result = list(cs)
    for i, c in zip(chosen, torch._foreach_mul(large, factors), strict=True):
        result[i] = c
    return result


def norms_of(cs: list[Tensor]) -> Tensor:
    """||c||_2 of each, (tensors,)."""
    return torch.stack([tensor_norm(c) for c in cs])


def tensor_norm(c: Tensor) -> Tensor:
    """||c||_2 as a 0-d tensor of c's dtype; chunked dot products for long float32 CPU tensors."""
    if not c.is_contiguous() and c.numel() < _span(c):
        c = c.contiguous()  # with gaps, as a block of columns: added up as a tensor of its own
    chunked = c.device.type == "cpu" and c.dtype == torch.float32 and c.numel() > _NORM_CHUNK
    if not (chunked and type(c) is Tensor):
        norm: Tensor = torch.linalg.vector_norm(c)
        return norm
    # in memory order where the memory is dense (transposed, channels_last), else a copy
    order = sorted(range(c.ndim), key=c.stride, reverse=True)
    flat = c.permute(order).reshape(-1)
    return dot(flat, flat).sqrt().to(c.dtype)


def _span(c: Tensor) -> int:
    """From the first to the last element of memory that a tensor with elements uses."""
    return 1 + sum((n - 1) * s for n, s in zip(c.shape, c.stride(), strict=True))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Dot product of flat tensors, 0-d in float64 from sums of pieces: float32 loses digits."""
    if a.numel() <= _NORM_CHUNK:
        return torch.dot(a, b).double()
    pairs = zip(torch.split(a, _NORM_CHUNK), torch.split(b, _NORM_CHUNK), strict=True)
    return torch.stack([torch.dot(x, y) for x, y in pairs]).double().sum()


def plain_norms(xs: list[Tensor]) -> Tensor | None:
    """||x|| of each, (tensors,), by one multi-tensor call; None where that would lose digits."""
    if {x.dtype for x in xs} not in ({torch.float32}, {torch.float64}):
        return None
    if xs[0].is_cpu and any(x.numel() > _NORM_CHUNK for x in xs):
        return None
    return torch.stack(torch._foreach_norm(xs))


def inners(xs: list[Tensor], ys: list[Tensor]) -> Tensor:
    """<x, y> of each pair of tensors of one shape, (tensors,) in float64.

    Of float32 and float64 by BLAS, or, of a list with itself, by one multi-tensor norm.
    """
    if xs is ys and (norms := plain_norms(xs)) is not None:
        return norms.double().square()
    exact = {x.dtype for x in (*xs, *ys)} in ({torch.float32}, {torch.float64})
    if not exact:
        return torch.stack([dot_and_difference(x, y)[0] for x, y in zip(xs, ys, strict=True)])
    flat = [(x.reshape(-1), y.reshape(-1)) for x, y in zip(xs, ys, strict=True)]
    if all(x.numel() <= _NORM_CHUNK for x, _ in flat):
        return torch.stack([torch.dot(x, y) for x, y in flat]).double()
    return torch.stack([dot(x, y) for x, y in flat])


def dot_and_difference(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """<a, b> and |a - b|^2 in float64, 0-d; piece by piece, so with no temporary of their size."""
    pairs = zip(
        torch.split(a.reshape(-1), _NORM_CHUNK),
        torch.split(b.reshape(-1), _NORM_CHUNK),
        strict=True,
    )
    dots, squares = [], []
    for x, y in pairs:
        y = y.to(x.dtype)
        dots.append((x * y).sum(dtype=torch.float64))
        squares.append((x - y).square_().sum(dtype=torch.float64))
    if not dots:
        zero = torch.zeros((), dtype=torch.float64, device=a.device)
        return zero, zero
    return torch.stack(dots).sum(), torch.stack(squares).sum()

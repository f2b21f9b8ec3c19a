"""From the gradient to the variance-reduced gradient c_t and its clip.

Multi-tensor: every argument is a list with one tensor per parameter, all of one device and dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .sharded import Shards

# Above this size a float32 norm on a CPU loses digits (2.7e-3 at 38 M elements).
_NORM_CHUNK = 1 << 20


def corrected_(last_grads: list[Tensor], grads: list[Tensor], *, gain: float) -> list[Tensor]:
    """c_t = g_t + k (g_t - g_{t-1}), written over g_{t-1} (paper eq. 3.2, Remark 3.3).

    Args:
        last_grads: g_{t-1}; holds c_t afterwards. Call :func:`remember_` once c_t is used up.
        grads: g_t, only read.
        gain: k = gamma * beta1 / (1 - beta1).
    """
    # lerp(g_prev, g, 1 + k) = g + k (g - g_prev): one pass, no temporary
    torch._foreach_lerp_(last_grads, grads, 1.0 + gain)
    return last_grads


def remember_(last_grads: list[Tensor], grads: list[Tensor]) -> None:
    """g_{t-1} <- g_t, by copy: p.grad may be zeroed, reused or overwritten by its owner."""
    torch._foreach_copy_(last_grads, grads)


def clip_scales(cs: list[Tensor], clip: float, shards: Shards | None = None) -> list[Tensor]:
    """min(1, clip / ||c||_2) of each tensor, as 0-d tensors on its device.

    A tensor of zeros has scale 1. NaN in c gives NaN. With ``shards``, c are the shards of tensors
    and the norms those of the whole ones.
    """
    norms = torch.stack([tensor_norm(c) for c in cs])
    if shards is not None:
        norms = shards.whole_norms(norms)
    return list(scales_of(norms, clip).unbind())


def scales_of(norms: Tensor, clip: float) -> Tensor:
    """min(1, clip / norm), 1 for a norm of 0, NaN for NaN."""
    return (clip / norms).clamp(max=1.0)


def clipped(
    cs: list[Tensor], clip: float, *, in_place: bool, shards: Shards | None = None
) -> list[Tensor]:
    """c~_t = c_t * min(1, clip / ||c_t||), per tensor (paper eq. 3.3).

    Args:
        cs: c_t; changed and returned with ``in_place``, else left as they are.
        clip: largest norm, > 0.
        shards: of which whole tensors ``cs`` are shards.
    """
    scales = clip_scales(cs, clip, shards)
    chosen = list(range(len(cs)))
    on_cpu = cs[0].device.type == "cpu" and not torch.compiler.is_compiling()
    if on_cpu:  # reading a scale costs nothing here, a pass over c does
        chosen = [i for i, scale in enumerate(scales) if scale != 1.0]  # NaN too
    if not chosen:
        return cs
    large, scales = [cs[i] for i in chosen], [scales[i] for i in chosen]
    if in_place:
        torch._foreach_mul_(large, scales)
        return cs
    result = list(cs)
    for i, c in zip(chosen, torch._foreach_mul(large, scales), strict=True):
        result[i] = c
    return result


def tensor_norm(c: Tensor) -> Tensor:
    """||c||_2 as a 0-d tensor of c's dtype; chunked dot products for long float32 CPU tensors."""
    chunked = c.device.type == "cpu" and c.dtype == torch.float32 and c.numel() > _NORM_CHUNK
    if not (chunked and type(c) is Tensor):
        norm: Tensor = torch.linalg.vector_norm(c)
        return norm
    # in memory order where the memory is dense (transposed, channels_last), else a copy
    order = sorted(range(c.ndim), key=c.stride, reverse=True)
    chunks = torch.split(c.permute(order).reshape(-1), _NORM_CHUNK)
    squares = torch.stack([torch.dot(chunk, chunk) for chunk in chunks])
    return squares.double().sum().sqrt().to(c.dtype)


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

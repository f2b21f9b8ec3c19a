"""From momentum to a step, for each rule, in the paper's order of lines.

Multi-tensor: lists with one tensor per parameter, all of one device and dtype. ``params`` and
state are changed in place; ``ms`` (first moments) and ``cs`` (gradient estimates) are only read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .correction import folded
from .distributed.sharded import Shards
from .hyperparameters import Settings
from .orthogonalize import (
    as_matrix,
    batches,
    matrix_shape,
    newton_schulz,
    prefers_gram,
    working_dtype,
)

CAUTIOUS_FLOOR = 1e-3  # under the share of elements that a cautious step leaves, as in timm


def momentum_(exp_avgs: list[Tensor], cs: list[Tensor], *, settings: Settings) -> list[Tensor]:
    """m_t = beta1 m_{t-1} + (1 - beta1) c_t (paper Alg. 1), updated in place and returned.

    Folded: with no clip the same m_t is (1 - gamma) EMA(g)_t + gamma g_t, so ``exp_avgs`` holds
    the EMA of the plain gradient and m_t is a new list.
    """
    torch._foreach_lerp_(exp_avgs, cs, 1.0 - settings.betas[0])
    return folded(exp_avgs, cs, settings.gamma) if settings.folds else exp_avgs


def adamw_(
    params: list[Tensor],
    ms: list[Tensor],
    cs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    steps: list[float] | list[Tensor],
    *,
    settings: Settings,
) -> None:
    r"""MARS-AdamW (paper Alg. 2), with torch's order of bias corrections and decoupled decay.

    .. math::
        v_t = \beta_2 v_{t-1} + (1-\beta_2) c_t^2, \qquad
        x \leftarrow x - \eta \Big(\frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon} + \lambda x\Big)

    Args:
        max_exp_avg_sqs: running maxima of v for amsgrad, else empty.
        steps: t of each parameter, from 1; numbers, or 0-d tensors on the parameters' device.
    """
    beta1, beta2 = settings.betas
    # v_t = beta2 v + (1 - beta2) c^2
    torch._foreach_mul_(exp_avg_sqs, beta2)
    torch._foreach_addcmul_(exp_avg_sqs, cs, cs, 1.0 - beta2)
    if settings.amsgrad:
        torch._foreach_maximum_(max_exp_avg_sqs, exp_avg_sqs)
        exp_avg_sqs = max_exp_avg_sqs

    # sqrt(v / (1 - beta2^t)) + eps
    denominators = torch._foreach_sqrt(exp_avg_sqs)
    roots: list[Any] = [correction(beta2, t) ** 0.5 for t in steps]
    torch._foreach_div_(denominators, roots)
    torch._foreach_add_(denominators, settings.eps)

    # x <- (1 - lr lambda) x - lr / (1 - beta1^t) m / denominator
    _decay_(params, settings)
    step_sizes: list[Any] = [-settings.lr / correction(beta1, t) for t in steps]
    if isinstance(step_sizes[0], Tensor):
        torch._foreach_div_(denominators, step_sizes)
        torch._foreach_addcdiv_(params, ms, denominators)
    else:
        torch._foreach_addcdiv_(params, ms, denominators, step_sizes)


def correction(beta: float, t: float | Tensor) -> float | Tensor:
    """1 - beta^t, in float64 either way."""
    if isinstance(t, Tensor):
        t = t.double()
    return 1.0 - beta**t


def cautious(
    directions: list[Tensor],
    grads: list[Tensor],
    *,
    maximize: bool,
    shards: Shards | None = None,
) -> list[Tensor]:
    r"""Directions only where their sign is that of g_t, scaled up by the share that is left.

    .. math::
        d_t \leftarrow d_t \, \frac{\phi}{\max(\text{mean}(\phi), 10^{-3})}, \qquad
        \phi = 1[d_t g_t > 0]

    "Cautious Optimizers" (arXiv 2411.16085) with timm's floor, per tensor. Signs are multiplied,
    not values, whose product could underflow.

    Args:
        directions: d_t, or anything with its signs element by element; only read.
        grads: g_t, as the user left it: neither corrected nor clipped.
        maximize: whether the step ascends.
        shards: of which whole tensors these are shards, so that means are those of the whole.
    """
    masks = torch._foreach_mul(torch._foreach_sign(directions), torch._foreach_sign(grads))
    if maximize:
        torch._foreach_neg_(masks)
    torch._foreach_clamp_min_(masks, 0.0)
    # a mean in bfloat16 would be a rough one
    wide = torch.promote_types(masks[0].dtype, torch.float32)
    left = torch.stack([mask.sum(dtype=wide) for mask in masks])
    sizes = [mask.numel() for mask in masks]
    if shards is not None:
        left, sizes = shards.whole_sums(left), [shape.numel() for shape in shards.shapes]
    shares = [n / max(1, size) for n, size in zip(left.unbind(), sizes, strict=True)]
    scales = torch.stack(shares).clamp(min=CAUTIOUS_FLOOR).reciprocal().to(masks[0].dtype)
    torch._foreach_mul_(masks, list(scales.unbind()))
    return list(torch._foreach_mul(directions, masks))


def lion_(
    params: list[Tensor],
    ms: list[Tensor],
    grads: list[Tensor],
    *,
    settings: Settings,
    shards: Shards | None = None,
) -> None:
    """MARS-Lion (paper Alg. 3): x <- x - lr (sign(m_t) + lambda x)."""
    _decay_(params, settings)
    signs = list(torch._foreach_sign(ms))
    if settings.cautious:
        signs = cautious(signs, grads, maximize=settings.maximize, shards=shards)
    if isinstance(settings.lr, Tensor):
        torch._foreach_mul_(signs, -settings.lr)
        torch._foreach_add_(params, signs)
    else:
        torch._foreach_add_(params, signs, alpha=-settings.lr)


def orthogonal_(
    params: list[Tensor],
    ms: list[Tensor],
    grads: list[Tensor],
    *,
    settings: Settings,
    shards: Shards | None = None,
) -> None:
    """x <- x - lr (scale U V^T + lambda x): MARS-Shampoo (Alg. 4), MARS-M (arXiv 2510.21800).

    ``scale``, of :func:`orthogonal_scale`, is all that tells them apart.
    """
    _decay_(params, settings)
    shapes = [x.shape for x in params]
    if shards is None:
        directions = _directions(ms, settings)
    else:
        shapes = shards.shapes
        sent = [m.to(working_dtype(m.dtype, m.device)) for m in ms]
        whole = partial(orthogonal_direction, settings=settings)
        directions = enumerate(shards.map_whole(whole, sent, stacked=settings.stacked))
    if settings.cautious:
        found = {i: direction.to(grads[i].dtype) for i, direction in directions}
        ordered = [found[i] for i in range(len(grads))]  # as shards has them
        directions = enumerate(cautious(ordered, grads, maximize=settings.maximize, shards=shards))
    for i, direction in directions:
        rows, cols = matrix_shape(shapes[i], stacked=settings.stacked)
        scale = orthogonal_scale(rows, cols, rule=settings.rule)
        if isinstance(settings.lr, Tensor):
            params[i].sub_(direction.to(params[i].dtype) * (settings.lr * scale))
        else:
            params[i].add_(direction, alpha=-settings.lr * scale)


def orthogonal_scale(rows: int, cols: int, *, rule: str) -> float:
    """The factor on U V^T: MARS-M's matches AdamW's update RMS, MARS-Shampoo's is Muon's own.

    The latter is the authors' code's, not their text's.
    """
    if rule == "muon":
        return 0.2 * math.sqrt(max(rows, cols))
    return math.sqrt(max(1.0, rows / max(1, cols)))


def _decay_(params: list[Tensor], settings: Settings) -> None:
    if settings.weight_decay != 0.0:
        torch._foreach_mul_(params, 1.0 - settings.lr * settings.weight_decay)


def orthogonal_direction(m: Tensor, *, settings: Settings) -> Tensor:
    """U V^T of a whole weight's momentum, in its shape and in the dtype of Newton-Schulz."""
    matrix = as_matrix(m, stacked=settings.stacked).to(working_dtype(m.dtype, m.device))
    return _orthogonalised(matrix, settings).reshape(m.shape)


def _orthogonalised(matrix: Tensor, settings: Settings) -> Tensor:
    return newton_schulz(
        matrix,
        steps=settings.ns_steps,
        coefficients=settings.ns_coefficients,
        dtype=matrix.dtype,
        gram=prefers_gram(matrix, matrix.dtype),
    )


def _directions(ms: list[Tensor], settings: Settings) -> Iterator[tuple[int, Tensor]]:
    """Index and U V^T of each: equal shapes in batches of bounded size, one batch at a time."""
    matrices = [as_matrix(m, stacked=settings.stacked) for m in ms]
    dtype = working_dtype(ms[0].dtype, ms[0].device)
    for indices in batches(matrices):
        xs = [matrices[i].to(dtype) for i in indices]
        alone = len(xs) == 1  # Newton-Schulz rounds a view of columns otherwise
        x = _orthogonalised(xs[0].contiguous() if alone else torch.stack(xs), settings)
        for i, u_vt in zip(indices, [x] if alone else x, strict=True):
            yield i, u_vt.reshape(ms[i].shape)

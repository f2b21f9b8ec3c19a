"""From momentum to a step, for each rule, in the paper's order of lines.

Multi-tensor: lists with one tensor per parameter, all of one device and dtype. ``params`` and
state are changed in place; ``ms`` (first moments) and ``cs`` (gradient estimates) are only read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .orthogonalize import as_matrix, matrix_shape, newton_schulz, working_dtype
from .settings import Settings
from .sharded import Shards


def momentum_(exp_avgs: list[Tensor], cs: list[Tensor], *, settings: Settings) -> list[Tensor]:
    """m_t = beta1 m_{t-1} + (1 - beta1) c_t (paper Alg. 1), updated in place and returned.

    Folded: with no clip the same m_t is (1 - gamma) EMA(g)_t + gamma g_t, so ``exp_avgs`` holds
    the EMA of the plain gradient and m_t is a new list.
    """
    torch._foreach_lerp_(exp_avgs, cs, 1.0 - settings.betas[0])
    if settings.folds:
        return list(torch._foreach_lerp(exp_avgs, cs, settings.gamma))
    return exp_avgs


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
    decay_(params, settings=settings)
    step_sizes: list[Any] = [-settings.lr / correction(beta1, t) for t in steps]
    if isinstance(step_sizes[0], Tensor):
        torch._foreach_div_(denominators, step_sizes)
        torch._foreach_addcdiv_(params, ms, denominators)
    else:
        torch._foreach_addcdiv_(params, ms, denominators, step_sizes)


def correction(beta: float, t: float | Tensor) -> float | Tensor:
    """1 - beta^t, in float64 either way."""
    return 1.0 - beta ** (t.double() if isinstance(t, Tensor) else t)


def lion_(params: list[Tensor], ms: list[Tensor], *, settings: Settings) -> None:
    """MARS-Lion (paper Alg. 3): x <- x - lr (sign(m_t) + lambda x)."""
    decay_(params, settings=settings)
    signs = torch._foreach_sign(ms)
    if isinstance(settings.lr, Tensor):
        torch._foreach_mul_(signs, -settings.lr)
        torch._foreach_add_(params, signs)
    else:
        torch._foreach_add_(params, signs, alpha=-settings.lr)


def shampoo_(
    params: list[Tensor], ms: list[Tensor], *, settings: Settings, shards: Shards | None = None
) -> None:
    """MARS-Shampoo (paper Alg. 4): x <- x - lr (scale U V^T + lambda x).

    ``scale`` = sqrt(max(1, rows / cols)) is the authors' code's, not the text's.
    """
    _orthogonal_step_(params, ms, settings=settings, shards=shards)


def muon_(
    params: list[Tensor], ms: list[Tensor], *, settings: Settings, shards: Shards | None = None
) -> None:
    """MARS-M (arXiv 2510.21800): x <- x - lr (0.2 sqrt(max(rows, cols)) U V^T + lambda x)."""
    _orthogonal_step_(params, ms, settings=settings, shards=shards)


def orthogonal_scale(rows: int, cols: int, *, rule: str) -> float:
    """The factor on U V^T: MARS-M's matches AdamW's update RMS, MARS-Shampoo's is Muon's own."""
    if rule == "muon":
        return 0.2 * math.sqrt(max(rows, cols))
    return math.sqrt(max(1.0, rows / max(1, cols)))


def decay_(params: list[Tensor], *, settings: Settings) -> None:
    """x <- (1 - lr lambda) x, decoupled from the gradient."""
    if settings.weight_decay != 0.0:
        torch._foreach_mul_(params, 1.0 - settings.lr * settings.weight_decay)


def orthogonal_direction(m: Tensor, *, settings: Settings) -> Tensor:
    """U V^T of a whole weight's momentum, in its shape and in the dtype of Newton-Schulz."""
    if m.numel() == 0:
        return m.to(working_dtype(m.dtype))
    matrix = as_matrix(m, stacked=settings.stacked)
    direction = newton_schulz(
        matrix, steps=settings.ns_steps, coefficients=settings.ns_coefficients
    )
    return direction.reshape(m.shape)


def _orthogonal_step_(
    params: list[Tensor], ms: list[Tensor], *, settings: Settings, shards: Shards | None
) -> None:
    decay_(params, settings=settings)
    direction = partial(orthogonal_direction, settings=settings)
    directions: Iterable[Tensor] = map(direction, ms)  # one at a time
    shapes = [x.shape for x in params]
    if shards is not None:
        shapes = shards.shapes
        sent = [m.to(working_dtype(m.dtype)) for m in ms]
        directions = shards.map_whole(direction, sent, stacked=settings.stacked)
    for x, d, shape in zip(params, directions, shapes, strict=True):
        rows, cols = matrix_shape(shape, stacked=settings.stacked)
        scale = orthogonal_scale(rows, cols, rule=settings.rule)
        if isinstance(settings.lr, Tensor):
            x.sub_(d.to(x.dtype) * (settings.lr * scale))
        else:
            x.add_(d, alpha=-settings.lr * scale)

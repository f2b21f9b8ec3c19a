"""Read this first: the whole algorithm as a plain loop over tensors that reads like the paper.

Slow on purpose: one temporary per line, no in-place tricks, any floating dtype. It is the oracle:
every fast path (``backends/``) is compared with :func:`update`, in float64, by the tests.

Letters as in arXiv 2411.10438: x parameter, g gradient, c variance-reduced gradient, m and v
moments, eta learning rate, lambda weight decay.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .correction import GlobalNorm
from .hyperparameters import Settings
from .types import KEPT, State


def update(
    params: list[Tensor],
    grads: list[Tensor],
    states: list[State],
    settings: Settings,
    *,
    global_norm: GlobalNorm | None = None,
) -> None:
    """One MARS step on every parameter.

    Args:
        params: x_t of any shape and floating dtype; changed in place.
        grads: g_t, shaped and typed like the parameters; only read.
        states: per parameter ``step`` (t - 1) and the buffers of ``backends.init_state``; changed.
        settings: the group's hyper-parameters.
        global_norm: the norm for ``clip_over="global"`` (default: None, over these parameters).
    """
    norms: list[Tensor | None] = [None] * len(params)
    if settings.clips_together:
        norms = [
            *(
                norm_over_all(grads, states, settings)
                if global_norm is None
                else global_norm.of(params)
            )
        ]
    for x, g, before, norm in zip(params, grads, states, norms, strict=True):
        state = {key: value.clone() for key, value in before.items() if key in KEPT}
        state["step"] += 1
        c = variance_reduced_gradient(g, state, settings, norm)
        m = first_moment(c, state, settings)
        direction = RULE_DIRECTIONS[settings.rule](m, c, state, settings)
        if settings.cautious:
            direction = cautious_direction(direction, g, settings)
        # x <- x - eta (direction + lambda x)
        x.copy_(x - settings.lr * (direction + settings.weight_decay * x))
        for key, value in state.items():
            before[key].copy_(value)


def corrected_gradient(g: Tensor, state: State, settings: Settings) -> Tensor:
    """c_t = g_t + gamma beta1 / (1 - beta1) (g_t - g_{t-1}) (Alg. 1, line 4).

    g_{t-1} is the last step's gradient, or with the exact form this batch's at x_{t-1}, which is in
    ``last_grad`` already.
    """
    if not settings.takes_difference:
        return g
    beta1 = settings.betas[0]
    c: Tensor = g + settings.gamma * beta1 / (1 - beta1) * (g - state["last_grad"])
    return c


def norm_over_all(grads: list[Tensor], states: list[State], settings: Settings) -> Tensor:
    """||c_t|| over all tensors, once for each."""
    cs = [corrected_gradient(g, s, settings) for g, s in zip(grads, states, strict=True)]
    norm: Tensor = torch.linalg.vector_norm(torch.cat([c.flatten() for c in cs]))
    return norm.expand(len(cs))


def variance_reduced_gradient(
    g: Tensor, state: State, settings: Settings, norm: Tensor | None = None
) -> Tensor:
    """c_t, clipped to the length ``settings.clip`` (Alg. 1, line 5).

    Args:
        g: g_t.
        state: with g_{t-1}, which becomes g_t.
        settings: the group's.
        norm: whose excess is clipped (default: None, ||c_t||).
    """
    c = corrected_gradient(g, state, settings)
    if "last_grad" in state and not settings.exact:
        state["last_grad"].copy_(g)
    c = -c if settings.maximize else c
    if settings.clip is not None:
        norm = torch.linalg.vector_norm(c) if norm is None else norm
        c = c if norm <= settings.clip else c / norm.to(c.dtype) * settings.clip
    return c


def first_moment(c: Tensor, state: State, settings: Settings) -> Tensor:
    """m_t = beta1 m_{t-1} + (1 - beta1) c_t; folded: m_t = (1 - gamma) EMA(g)_t + gamma g_t."""
    beta1, gamma = settings.betas[0], settings.gamma
    state["exp_avg"].copy_(beta1 * state["exp_avg"] + (1 - beta1) * c)
    if settings.correction == "folded":
        m: Tensor = (1 - gamma) * state["exp_avg"] + gamma * c
        return m
    return state["exp_avg"].clone()


def cautious_direction(direction: Tensor, g: Tensor, settings: Settings) -> Tensor:
    """Only where it agrees with g_t in sign, the rest scaled up (arXiv 2411.16085).

    The floor 1e-3 under the mask's mean is timm's.
    """
    g = -g if settings.maximize else g
    mask = (direction.sign() * g.sign() > 0).to(direction.dtype)
    return direction * mask / mask.mean().clamp(min=1e-3)


def adamw_direction(m: Tensor, c: Tensor, state: State, settings: Settings) -> Tensor:
    """m^ / (sqrt(v^) + eps) with v_t = beta2 v_{t-1} + (1 - beta2) c_t^2 (Alg. 2)."""
    (beta1, beta2), t = settings.betas, float(state["step"])
    state["exp_avg_sq"].copy_(beta2 * state["exp_avg_sq"] + (1 - beta2) * c * c)
    v = state["exp_avg_sq"]
    if settings.amsgrad:
        state["max_exp_avg_sq"].copy_(torch.maximum(state["max_exp_avg_sq"], v))
        v = state["max_exp_avg_sq"]
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    direction: Tensor = m_hat / (v_hat.sqrt() + settings.eps)
    return direction


def lion_direction(m: Tensor, c: Tensor, state: State, settings: Settings) -> Tensor:
    """sign(m_t) (Alg. 3)."""
    return m.sign()


def shampoo_direction(m: Tensor, c: Tensor, state: State, settings: Settings) -> Tensor:
    """sqrt(max(1, rows / cols)) U V^T of m_t (Alg. 4; the factor is the authors' code's)."""
    u_vt = orthogonal_factor(m, settings)
    return math.sqrt(max(1.0, u_vt.size(-2) / max(1, u_vt.size(-1)))) * u_vt.reshape(m.shape)


def muon_direction(m: Tensor, c: Tensor, state: State, settings: Settings) -> Tensor:
    """0.2 sqrt(max(rows, cols)) U V^T of m_t (arXiv 2510.21800, Alg. 2)."""
    u_vt = orthogonal_factor(m, settings)
    return 0.2 * math.sqrt(max(u_vt.size(-2), u_vt.size(-1))) * u_vt.reshape(m.shape)


def orthogonal_factor(m: Tensor, settings: Settings) -> Tensor:
    """Newton-Schulz on each matrix of m: X <- a X + (b A + c A^2) X with A = X X^T."""
    if not (settings.stacked and m.ndim > 2):
        m = m.flatten(1)
    if m.ndim > 2:
        return torch.stack([orthogonal_factor(matrix, settings) for matrix in m])
    x = m if m.dtype == torch.float64 else m.bfloat16()
    x = x / max(float(torch.linalg.vector_norm(x)), 1e-7)
    if m.size(0) > m.size(1):
        x = x.T
    for a, b, c in settings.polynomials:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    u_vt: Tensor = x.T if m.size(0) > m.size(1) else x
    return u_vt.to(m.dtype)


RULE_DIRECTIONS: dict[str, Callable[[Tensor, Tensor, State, Settings], Tensor]] = {
    "adamw": adamw_direction,
    "lion": lion_direction,
    "shampoo": shampoo_direction,
    "muon": muon_direction,
}

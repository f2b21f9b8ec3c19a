r"""The gamma at which MARS-approx's momentum is nearest to the full gradient: noise against lag.

Without a clip the momentum is m_t = (1 - gamma) EMA(g)_t + gamma g_t. With batches drawn
independently, N = tr Var(g) about constant over the average's memory, and L = E EMA(g)_t - grad F
the lag of the plain average::

    E|m_t - grad F|^2 = (1 - gamma)^2 |L|^2 + N v(beta, gamma)
    v = (1 - gamma)^2 (1 - beta) / (1 + beta) + 2 gamma (1 - gamma) (1 - beta) + gamma^2

a parabola in gamma, whose lowest point is :func:`least_error`. :func:`best_gamma` finds it without
holding the path fixed, from dot products of a run's own steps. Derived in docs/theory.md.
"""

from __future__ import annotations

import math


def average_variance(beta: float, gamma: float = 0.0) -> float:
    """v = Var m / Var g of MARS-approx's momentum under independent noise; gamma 0: AdamW's."""
    own = (1.0 - gamma) ** 2 * (1.0 - beta) / (1.0 + beta)
    return own + 2.0 * gamma * (1.0 - gamma) * (1.0 - beta) + gamma**2


def correction_variance(beta: float, gamma: float) -> float:
    """Var c / Var g of the approximate form under independent noise: (1 + k)^2 + k^2."""
    k = gamma * beta / (1.0 - beta)
    return (1.0 + k) ** 2 + k**2


def momentum_error(gamma: float, *, lag_squared: float, noise: float, beta: float) -> float:
    """E|m_t - grad F|^2 of MARS-approx.

    Args:
        gamma: scale of the correction.
        lag_squared: |L|^2 of the plain average, gamma = 0.
        noise: N = tr Var(g) of one batch.
        beta: beta1.
    """
    return (1.0 - gamma) ** 2 * lag_squared + noise * average_variance(beta, gamma)


def least_error(*, lag_squared: float, noise: float, beta: float) -> float:
    """The gamma in [0, 1] at which :func:`momentum_error` is least.

    (r - beta (1 - beta) / (1 + beta)) / (r + 2 beta^2 / (1 + beta)) with r = |L|^2 / N, and 0 where
    that is negative: a correction pays from |L|^2 > beta Var EMA(g) on.
    """
    above = lag_squared - noise * beta * (1.0 - beta) / (1.0 + beta)
    below = lag_squared + noise * 2.0 * beta**2 / (1.0 + beta)
    return min(1.0, max(0.0, above / below)) if below > 0 else 0.0


def noise_and_signal(gg: float, ll: float, gl: float) -> tuple[float, float]:
    """(tr Var(g), |grad F_t|^2) from means of |g_t|^2, |g_{t-1}|^2 and <g_t, g_{t-1}>.

    Two batches are independent, so E<g_t, g_{t-1}> = <grad F_t, grad F_{t-1}>. With d the full
    gradient's move in the step, the first is too large and the second too small by |d|^2 / 2.
    """
    return max(0.0, (gg + ll) / 2.0 - gl), gl + (gg - ll) / 2.0


def error_of_last(gg: float, ll: float, gl: float, gm: float, mm: float) -> float:
    """Q = E|a_{t-1} - grad F_t|^2: how far the average in memory is from the gradient that is due.

    Noise and lag of a_{t-1} together, whatever path it came by: the noise of g_t is independent of
    it, so E<g_t, a_{t-1}> = E<grad F_t, a_{t-1}>. Never below 0.
    """
    _, signal = noise_and_signal(gg, ll, gl)
    return max(0.0, mm - 2.0 * gm + signal)


def lag_from_drift(drift_squared: float, *, beta: float) -> float:
    """|L|^2 of the plain average if the full gradient moves on in a straight line.

    Args:
        drift_squared: |grad F_t - grad F_{t-1}|^2, at most the mean of |g_t - g_{t-1}|^2 of one
            batch at both points, as the exact form has it.
        beta: beta1.
    """
    return (beta / (1.0 - beta)) ** 2 * drift_squared


def best_gamma(gg: float, ll: float, gl: float, gm: float, mm: float, *, beta: float) -> float:
    """The gamma in [0, 1] of the least estimated error, from dot products of a run's own steps.

    m_t = (1 - gamma) EMA(g)_t + gamma g_t gives the newest gradient the weight
    w = 1 - beta + gamma beta, and leaves 1 - w to the average a_{t-1} from before. Its error is
    (1 - w)^2 Q + w^2 N, least at w = Q / (Q + N), the gain of a Kalman filter.

    ``gg``, ``ll`` and ``gl`` alone cannot tell it: they give noise and signal, and no lag. The
    last two, of the average that is in memory anyway, close the gap without a model of how the
    gradient moves. Two things limit it: the full gradient's move in one step must be small beside
    the noise, and the mean must be long, for <g_t, g_{t-1}> is itself noisy (docs/theory.md).

    Args:
        gg: mean over recent steps of |g_t|^2.
        ll: of |g_{t-1}|^2.
        gl: of <g_t, g_{t-1}>, of two batches (not the exact form's).
        gm: of <g_t, a_{t-1}>; a_{t-1} is the plain average EMA(g) with Adam's bias correction,
            what ``correction="folded"`` keeps as ``exp_avg``, divided by 1 - beta^(t-1).
        mm: of |a_{t-1}|^2.
        beta: beta1; early in a run 1 - (1 - beta1) / (1 - beta1^t), the weight of a_{t-1}.

    Raises:
        ValueError: for a beta out of range.
    """
    if not 0.0 < beta < 1.0:
        raise ValueError(f"beta={beta!r} must be above 0 and below 1")
    if not all(map(math.isfinite, (gg, ll, gl, gm, mm))):
        return 0.0  # a step that overflowed tells nothing: no correction
    noise, _ = noise_and_signal(gg, ll, gl)
    error = error_of_last(gg, ll, gl, gm, mm)
    if error + noise <= 0.0:
        return 0.0
    return min(1.0, max(0.0, (error / (error + noise) - (1.0 - beta)) / beta))

r"""The gamma at which MARS-approx's momentum is nearest to the full gradient: noise against lag.

Without a clip the momentum is m_t = (1 - gamma) EMA(g)_t + gamma g_t. With batches drawn
independently, N = tr Var(g) about constant over the average's memory, and L = E EMA(g)_t - grad F
the lag of the plain average::

    E|m_t - grad F|^2 = (1 - gamma)^2 |L|^2 + N v(beta, gamma)
    v = (1 - gamma)^2 (1 - beta) / (1 + beta) + 2 gamma (1 - gamma) (1 - beta) + gamma^2

a parabola in gamma, whose lowest point is :func:`least_error`. Derived in docs/theory.md.
"""

from __future__ import annotations


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


def lag_from_drift(drift_squared: float, *, beta: float) -> float:
    """|L|^2 of the plain average if the full gradient moves on in a straight line.

    Args:
        drift_squared: |grad F_t - grad F_{t-1}|^2, at most the mean of |g_t - g_{t-1}|^2 of one
            batch at both points, as the exact form has it.
        beta: beta1.
    """
    return (beta / (1.0 - beta)) ** 2 * drift_squared

"""Verdicts of the rule on simulated pairs, as :mod:`.worth` weighs designs by them."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from ..analysis.looks import FIRST, least_hopeful, level_of
from ..analysis.mean_ladder import ladder_error, mean_ladder
from ..analysis.stats import t_quantile
from ..plan import Plan
from ..plan.decision import DecisionPlan

Floats = NDArray[np.float64]
PLACES = np.linspace(-1.0, 1.0, 81)
"""Log token ratios at which a mean ladder's error is computed; between them it is interpolated."""


def ladder_errors(plan: Plan, thetas: Floats, sd: float) -> Floats:
    """Standard deviation that a mean ladder adds to each of these log token ratios (pilots,).

    By :func:`ladder_error`, on a ladder that is straight in log tokens. It is 0 where every seed
    has its own ladder: then it is part of the noise between pairs.
    """
    comparison = plan.comparison
    seeds = min(comparison.ladder_seeds, len(comparison.seeds))
    if not seeds or not plan.ladder:
        return np.zeros_like(thetas)
    found: Floats = np.interp(thetas, PLACES, _on_straight(plan.ladder, seeds, sd))
    return found


@functools.cache
def _on_straight(ladder: tuple[float, ...], seeds: int, sd: float) -> list[float]:
    """The error at each of ``PLACES``, of a loss that is the negative log of tokens."""
    losses = {round(1e6 * budget): -math.log(budget) for budget in (*ladder, 1.0)}
    mean = mean_ladder([losses] * seeds, 1_000_000)
    assert mean is not None
    return [ladder_error(mean, [(0.0, -theta)], sd) for theta in PLACES]


def verdicts(pairs: Floats, decision: DecisionPlan, rates: float | Floats) -> tuple[Floats, Floats]:
    """Verdicts of the rule on simulated pilots, 1 go, -1 no-go, 0 open, and the pairs that each
    ran.

    Args:
        pairs: log token ratios, (pilots, most pairs).
        decision: the rule.
        rates: standard deviation that is the same for all pairs of a pilot, added in quadrature:
            of the choice of the rates and of a mean ladder; one, or of each pilot (pilots,).
    """
    pilots, most = pairs.shape
    verdict, used = np.zeros(pilots), np.full(pilots, float(most))
    threshold = -math.log1p(-decision.min_saving)
    open_ = np.ones(pilots, bool)
    looks = range(FIRST, most + 1) if decision.looks == "every-pair" else (most,)
    hope = least_hopeful(decision.confidence, most) if len(looks) > 1 else 0.0
    centre = pairs.mean()  # so that sums of squares keep their digits
    totals = np.cumsum(pairs - centre, axis=1)
    squares = np.cumsum((pairs - centre) ** 2, axis=1)
    for n in looks:
        mean = centre + totals[:, n - 1] / n
        variance = np.maximum(squares[:, n - 1] - totals[:, n - 1] ** 2 / n, 0.0) / (n - 1)
        half = t_quantile(level_of(decision, n), n) * np.sqrt(variance / n + rates**2)
        side = (mean - half > threshold).astype(float) - (mean + half < threshold)
        far = np.abs(mean - threshold) + np.sqrt(variance / n)
        hopeless = far < hope * np.sqrt(variance + rates**2 * most)
        done = open_ & ((side != 0) | hopeless)
        verdict[done], used[done] = side[done], n
        open_ &= ~done
    return verdict, used

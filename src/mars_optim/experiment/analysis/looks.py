"""Intervals that hold at every look: pairs are added one at a time until the verdict is clear.

At n pairs the interval is Student's, mean +- c_n sd / sqrt(n), with a limit c_n that is larger than
the usual quantile. Of alpha = 1 - confidence the look at n pairs spends

    alpha_n = alpha / ((n - 2) (n - 1)),  n = 3, 4, ...,  of the sum alpha

and c_n is such that P(|t_n| > c_n, |t_m| <= c_m for all 3 <= m < n) <= alpha_n. So all intervals of
a pilot hold the truth together with probability 1 - alpha, however many pairs are added and
whatever rule ends it (docs/statistics.md; Lan and DeMets 1983, Jennison and Turnbull 1989).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ..plan.comparison import FIRST_LOOK
from . import stats
from .stats import Interval, power, t_interval

if TYPE_CHECKING:
    from ..plan.decision import DecisionPlan

FIRST = FIRST_LOOK

PATHS = 1_000_000
LAST_EXACT = 20
LEAST_PATHS = 200
"""That cross at a look: below, its limit is that of the union bound, P(|t_n| > c_n) = alpha_n."""

HOPE = 0.1
"""Chance of a decision, at the most pairs, below which no pair is added."""


def level_of(decision: DecisionPlan, n: int) -> float:
    """The confidence of Student's interval of n pairs by the rule of a plan."""
    if decision.looks == "once":
        return decision.confidence
    return confidence_at(decision.confidence, n)


def interval(values: Iterable[float | None], decision: DecisionPlan) -> Interval | None:
    """Student's interval of the values that are known; None if none is."""
    known = [v for v in values if v is not None]
    return t_interval(known, level_of(decision, len(known))) if known else None


def p_value(measured: Interval, decision: DecisionPlan) -> float:
    """Two-sided, of Student's test; of looks at every pair by the union bound over looks."""
    p = stats.p_value(measured)
    if decision.looks == "once" or math.isnan(p):
        return p
    return min(1.0, p / _share(measured.n)) if measured.n >= FIRST else 1.0


def confidence_at(confidence: float, n: int) -> float:
    """The nominal confidence of Student's interval at the look at n pairs; 1 before the first.

    Args:
        confidence: of all looks together.
        n: number of pairs.
    """
    if n < FIRST:
        return 1.0
    exact = _exact(confidence)
    if n - FIRST < len(exact):
        return exact[n - FIRST]
    return 1.0 - (1.0 - confidence) * _share(n)


def _share(n: int) -> float:
    """Share of alpha that is spent at the look at n pairs; the sum from 3 on is 1."""
    return 1.0 / ((n - 2) * (n - 1))


@cache
def _exact(confidence: float) -> tuple[float, ...]:
    """Nominal confidences at 3, 4, ... pairs, by simulation from a fixed seed.

    Student's statistic is that of standard normal pairs, whatever their mean and sd. Each limit
    lets one standard error fewer of the paths cross than its share.
    """
    from scipy.special import stdtr  # slow to import

    rng = np.random.default_rng(0)
    total, squares = np.zeros(PATHS), np.zeros(PATHS)
    alive = np.ones(PATHS, bool)
    found: list[float] = []
    for n in range(1, LAST_EXACT + 1):
        new = rng.standard_normal(PATHS)
        total += new
        squares += new * new
        if n < FIRST:
            continue
        due = (1.0 - confidence) * _share(n) * PATHS
        if due < LEAST_PATHS:
            break
        variance = (squares - total * total / n) / (n - 1)
        t = np.abs(total) / np.sqrt(n * variance)
        crossing = int(due - math.sqrt(due))
        limit = float(np.partition(t[alive], -crossing - 1)[-crossing - 1])
        alive &= t <= limit
        found.append(1.0 - 2.0 * float(stdtr(n - 1, -limit)))
    return tuple(found)


@cache
def least_hopeful(confidence: float, most: int) -> float:
    """The least distance, in standard deviations of a pair, at which :func:`hopeful` is true.

    Args:
        confidence: of all looks together.
        most: pairs that the plan allows.
    """
    from scipy.optimize import brentq  # slow to import

    level = confidence_at(confidence, most)
    if power(0.0, 1.0, most, level) >= HOPE:
        return 0.0
    found = brentq(lambda x: power(x, 1.0, most, level) - HOPE, 1e-9, 100.0)
    return float(found)


def hopeful(interval: Interval, threshold: float, confidence: float, most: int) -> bool:
    """Whether more pairs have a chance of :data:`HOPE` to leave the threshold out.

    In its favour, the mean is taken to lie one standard error further from the threshold.

    Args:
        interval: at this look.
        threshold: of the rule, in log tokens.
        confidence: of all looks together.
        most: pairs that the plan allows.
    """
    distance = abs(interval.mean - threshold) + interval.error
    sd = math.hypot(interval.sd, interval.rates * math.sqrt(most))
    return power(distance, sd, most, confidence_at(confidence, most)) >= HOPE

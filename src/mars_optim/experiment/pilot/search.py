"""The search for a learning rate: one trial at a time, the same for all arms.

A pure function of an arm's trials so far, so that it can be repeated and resumed. It ends at equal
*resolution* for every arm, wherever it began: the best trial lies between two others, and the
lowest point of the fit has trials half a step away, or is known as well without them. How many
trials that took is a cost, not a quota.
"""

from __future__ import annotations

import math

import numpy as np

from ..analysis.rate_fit import RateFit, fit_rate
from ..records.trials import Trials, at_edge, best_lr, bracket, near, open_sides

__all__ = [
    "Trials",
    "at_edge",
    "best_lr",
    "bracket",
    "next_lr",
    "next_outward",
    "repeated",
    "stencil",
]

NEIGHBOURS = (0, -1, 1)
"""Around the lowest point, in half steps, in the order in which they are tried."""
DOWN = 6
"""Steps below the lowest point at the most, where that is open."""
LIKELY, OPEN, SHARP = 0.9, 0.9, 0.75
"""The lowest point is open where its range of this probability is wider than so many steps, and
known where it is narrower than so many."""
SURE = 0.8
"""Probability with which the loss has to rise at the lowest rate tried, or the search goes on
below it."""


def next_lr(default: float, factor: float, trials: Trials, least: int = 0) -> float | None:
    """The next learning rate to try; None when the search is over.

    The start; one step up, or down if it diverged; then outward in full steps until the best of the
    trials lies between two others; then, unless the fit (:func:`fit_rate`) knows the lowest point
    already, what is missing around it; then down, while the fit hardly tells where the lowest point
    is, nor that the loss rises below the trials: a best by noise, where rates are all too high and
    runs are stuck alike, is none.

    Args:
        default: where the search starts.
        factor: between neighbours, > 1; half steps are its square root.
        trials: so far.
        least: trials that are made in any case.
    """
    if not trials:
        return default
    if ignores_rate(trials):
        return None
    best, lower, upper = bracket(trials)
    if trials[best] is None:  # so did all others
        return best / factor if len(trials) > 1 else default / factor
    if upper is None:
        return near(trials, best * factor)
    if lower is None:
        return near(trials, best / factor)
    low, high = _range(factor, trials)
    if len(trials) >= least and math.log(high / low) < SHARP * math.log(factor):
        return None
    around = stencil(default, factor, trials)
    for lr in around:
        if near(trials, lr) not in trials and _below_walls(trials, best, lr):
            return lr
    lowest = min(trials)
    deepest = 1.001 * around[0] / factor**DOWN
    if trials[lowest] is not None and lowest > deepest and _open(factor, trials):
        return near(trials, lowest / factor)
    return _between(trials, best) if len(trials) < least else None


def stencil(default: float, factor: float, trials: Trials) -> tuple[float, ...]:
    """The rates around the lowest point of the fit, on the search's own half steps.

    Args:
        default: where the search started; the half steps are counted from here.
        factor: between neighbours.
        trials: so far, the best between two others.
    """
    fit = _fit(factor, trials)
    lowest = fit.best if fit else best_lr(trials)
    centre = round(2 * math.log(lowest / default) / math.log(factor))
    rates = (default * factor ** ((centre + k) / 2) for k in NEIGHBOURS)
    return tuple(near(trials, lr) for lr in rates)


def repeated(default: float, factor: float, trials: Trials) -> tuple[float, ...]:
    """The rates of the stencil that further seeds try: none that diverged, nor one beyond it.

    Args:
        default: as in :func:`stencil`.
        factor: likewise.
        trials: likewise; not all of the stencil need have been tried.
    """
    best, _, _ = bracket(trials)
    around = stencil(default, factor, trials)
    return tuple(lr for lr in around if _below_walls(trials, best, lr))


def next_outward(default: float, factor: float, trials: Trials, others: float) -> float | None:
    """Two steps outside the rates of an arm whose search is over; None if that needs no doubt.

    An arm whose best lies far above the losses of others, and whose trials hardly differ by that
    measure, may have learned at none of them (:func:`open_sides`). The
    side that is less explored from where the search began comes first, of equals the lower one.

    Args:
        default: where the search began.
        factor: between neighbours, > 1.
        trials: of the arm, one of them finite.
        others: the lowest loss of the other arms on the same seed.
    """
    if ignores_rate(trials):
        return None
    ends, sides = {-1: min(trials), 1: max(trials)}, open_sides(trials, others)
    if not sides:
        return None
    side = min(sides, key=lambda side: round((ends[side] / default) ** side, 6))
    return near(trials, ends[side] * factor ** (2 * side))


def ignores_rate(trials: Trials) -> bool:
    """Whether three rates or more gave the same loss to the last bit: a job that ignores them."""
    return len(trials) > 2 and len(set(trials.values())) == 1 and None not in trials.values()


def _open(factor: float, trials: Trials) -> bool:
    """Whether the fit hardly tells where the lowest point is, and it may lie below all trials."""
    fit = _fit(factor, trials)
    if fit is None:
        return True
    low, high = _range(factor, trials)
    return math.log(high / low) > OPEN * math.log(factor) and not _rises_below(fit, trials)


def _range(factor: float, trials: Trials) -> tuple[float, float]:
    """Rates between which the best is likely to lie; without a fit, any."""
    fit = _fit(factor, trials)
    return fit.low_high(LIKELY) if fit else (min(trials) / factor, max(trials) * factor)


def _rises_below(fit: RateFit, trials: Trials) -> bool:
    """Whether the lowest rate tried loses more than the chosen one, however unsure both are."""
    at_lowest, chosen = fit.regret(min(trials)), fit.regret(fit.best)
    return bool(np.quantile(at_lowest, 1 - SURE) > np.quantile(chosen, SURE))


def _fit(factor: float, trials: Trials) -> RateFit | None:
    return fit_rate([(lr, 0, loss) for lr, loss in trials.items()], factor)


def _below_walls(trials: Trials, best: float, lr: float) -> bool:
    """Whether no rate between the best and this one diverged, nor this one."""
    gone = [tried for tried, loss in trials.items() if loss is None]
    return not any(best < g <= lr or lr <= g < best for g in gone)


def _between(trials: Trials, best: float) -> float:
    """Halfway, in logarithm, to the farther neighbour of the best."""
    _, lower, upper = bracket(trials)
    assert lower is not None
    assert upper is not None
    farther = upper if upper / best >= best / lower else lower
    return best * math.sqrt(farther / best)

"""The search for a learning rate: one trial at a time, the same for all arms.

A pure function of an arm's trials so far, so that it can be repeated and resumed. It ends at equal
*resolution* for every arm, wherever it began: the lowest point of the fit has trials around it at
half steps and at full steps on both sides. How many trials that took is a cost, not a quota.
"""

from __future__ import annotations

import math

from ..analysis.rates import fit_rate
from ..records.trials import Trials, at_edge, best_lr, bracket, near

__all__ = ["Trials", "at_edge", "best_lr", "bracket", "next_lr", "stencil"]

NEIGHBOURS = (0, -2, 2, -1, 1)
"""Around the lowest point, in half steps, in the order in which they are tried."""


def next_lr(default: float, factor: float, trials: Trials, least: int = 0) -> float | None:
    """The next learning rate to try; None when the search is over.

    The published default; one step up, or down if it diverged; then outward in full steps until the
    best of the trials lies between two others; then what is missing around the lowest point of the
    fit (:func:`mars_optim.analysis.rates.fit_rate`).

    Args:
        default: where the search starts.
        factor: between neighbours, > 1; half steps are its square root.
        trials: so far.
        least: trials that are made in any case.
    """
    if not trials:
        return default
    best, lower, upper = bracket(trials)
    if trials[best] is None:  # so did all others
        return best / factor if len(trials) > 1 else default / factor
    if upper is None:
        return near(trials, best * factor)
    if lower is None:
        return near(trials, best / factor)
    for lr in stencil(default, factor, trials):
        if near(trials, lr) not in trials and _below_walls(trials, best, lr):
            return lr
    return _between(trials, best) if len(trials) < least else None


def stencil(default: float, factor: float, trials: Trials) -> tuple[float, ...]:
    """The rates around the lowest point of the fit, on the search's own half steps.

    Args:
        default: where the search started; the half steps are counted from here.
        factor: between neighbours.
        trials: so far, the best between two others.
    """
    fit = fit_rate([(lr, 0, loss) for lr, loss in trials.items()], factor)
    lowest = fit.best if fit else best_lr(trials)
    centre = round(2 * math.log(lowest / default) / math.log(factor))
    rates = (default * factor ** ((centre + k) / 2) for k in NEIGHBOURS)
    return tuple(near(trials, lr) for lr in rates)


def _below_walls(trials: Trials, best: float, lr: float) -> bool:
    """Whether no rate between the best and this one diverged, nor this one."""
    gone = [tried for tried, loss in trials.items() if loss is None]
    return not any(best < g <= lr or lr <= g < best for g in gone)


def _between(trials: Trials, best: float) -> float:
    """Halfway, in logarithm, to the farther neighbour of the best."""
    _, lower, upper = bracket(trials)
    assert lower is not None
    assert upper is not None
    return math.sqrt(best * (upper if upper / best >= best / lower else lower))

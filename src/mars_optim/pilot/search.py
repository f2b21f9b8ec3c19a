"""The search for a learning rate: one trial at a time on a geometric grid, the same for all arms.

A pure function of an arm's trials so far, so that it can be repeated and resumed.
"""

from __future__ import annotations

import math

from ..records.trials import Trials, at_edge, best_lr, bracket, loss_at

__all__ = ["Trials", "at_edge", "best_lr", "bracket", "next_lr"]


def next_lr(default: float, factor: float, trials: Trials) -> float:
    """The next learning rate to try.

    The published default; one step up; then outward from the best until it lies between two
    neighbours; then halfway (in logarithm) towards the better of its neighbours.

    Args:
        default: where the search starts.
        factor: between neighbours, > 1.
        trials: so far.
    """
    if not trials:
        return default
    if len(trials) == 1:
        return default * factor
    best, lower, upper = bracket(trials)
    if upper is None:
        return best * factor
    if lower is None:
        return best / factor
    towards = min((lower, upper), key=lambda lr: loss_at(trials, lr))
    return math.sqrt(best * towards)

"""The search for a learning rate: one trial at a time on a geometric grid, the same for all arms.

A pure function of an arm's trials so far, so that it can be repeated and resumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

Trials = Mapping[float, float | None]
"""Learning rate -> final loss; None for a run that diverged."""


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
    towards = min((lower, upper), key=lambda lr: _loss(trials, lr))
    return math.sqrt(best * towards)


def at_edge(trials: Trials) -> bool:
    """Whether the best trial is the lowest or the highest learning rate tried."""
    _, lower, upper = bracket(trials)
    return lower is None or upper is None


def best_lr(trials: Trials) -> float:
    """The learning rate with the lowest loss; the lower one of equals."""
    return bracket(trials)[0]


def bracket(trials: Trials) -> tuple[float, float | None, float | None]:
    """The best learning rate, and its neighbours among those tried."""
    lrs = sorted(trials)
    i = min(range(len(lrs)), key=lambda j: _loss(trials, lrs[j]))
    return lrs[i], lrs[i - 1] if i > 0 else None, lrs[i + 1] if i + 1 < len(lrs) else None


def _loss(trials: Trials, lr: float) -> float:
    loss = trials[lr]
    return math.inf if loss is None else loss

"""Reading an arm's trials of the learning rate: which is the best, and does it lie at an edge?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

AROUND = 3
"""Trials around an arm's best rate: itself, and half a step away on both sides."""

CLEARLY = 0.1
"""Share of an arm's distance to the best of the others that a trial beside its lowest point must
rise for this to be a lowest point; how far training gets without learning is no valley."""

Trials = Mapping[float, float | None]
"""Learning rate -> final loss; None for a run that diverged."""


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
    i = min(range(len(lrs)), key=lambda j: loss_at(trials, lrs[j]))
    return lrs[i], lrs[i - 1] if i > 0 else None, lrs[i + 1] if i + 1 < len(lrs) else None


def loss_at(trials: Trials, lr: float) -> float:
    """The loss of a trial; inf for one that diverged."""
    return loss_or_inf(trials[lr])


def loss_or_inf(loss: float | None) -> float:
    """A final loss; inf for a run that diverged."""
    return math.inf if loss is None else loss


def best_of_others(trials: Mapping[str, Trials], arm: str) -> float:
    """The lowest loss of the other arms; inf if they have none."""
    losses = (loss_at(mine, best_lr(mine)) for name, mine in trials.items() if name != arm and mine)
    return min(losses, default=math.inf)


def open_sides(trials: Trials, others: float) -> tuple[int, ...]:
    """The sides, -1 and 1, on which no trial is clearly worse than the best.

    An arm whose best lies far above the losses of others, and whose trials hardly differ by that
    measure, may have learned at none of them: its valley is elsewhere.

    Args:
        trials: of the arm, at least one.
        others: the lowest loss of the other arms on the same seed.
    """
    best = best_lr(trials)
    level = loss_at(trials, best)
    if not others < level < math.inf:
        return ()
    risen = [lr for lr in trials if loss_at(trials, lr) > level + CLEARLY * (level - others)]
    return tuple(side for side in (-1, 1) if not any(side * lr > side * best for lr in risen))


def near(trials: Trials, lr: float) -> float:
    """The trial's learning rate that differs from ``lr`` by rounding only, else ``lr``."""
    return next((tried for tried in trials if math.isclose(tried, lr, rel_tol=1e-9)), lr)


def most_used_lr(losses: Mapping[float, Sequence[float | None]]) -> float:
    """The rate with the most runs; of equals, that of the lowest mean loss, then the lowest.

    Args:
        losses: by rate; None for a run that diverged, after which there is no mean.
    """

    def rank(lr: float) -> tuple[int, float, float]:
        finite = [loss for loss in losses[lr] if loss is not None]
        whole = bool(finite) and len(finite) == len(losses[lr])
        return -len(losses[lr]), fmean(finite) if whole else math.inf, lr

    return min(losses, key=rank)

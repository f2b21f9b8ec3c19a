"""Gain from tuning: the loss that is expected after k trials, and its interval.

Someone with k trials tries the default, then k - 1 of the design's other points, and keeps the
lowest loss. The mean of that over all choices of k - 1 of the N points that were tried needs no
random numbers: with the losses sorted, the r-th is the lowest of them with probability

    C(N - r, k - 2) / C(N, k - 1)

which is unbiased for points drawn independently (Dodge et al. 2019; Sivaprasad et al. 2020). What
another draw of the N points would have given is told by a bootstrap over them, the choice of the
lowest inside. Arms share the places of their points, so a draw is of all arms together: where the
same point is best for two arms, its luck is no difference between them. At k = N + 1 the spread is
the noise of the choice itself, which the comparison's intervals take in (:mod:`.choice`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from ..plan import Arm
from ..plan.tuning import Point, TuningPlan, point, value_at
from .design import Losses, trials
from .rate_fit import Floats

DRAWS = 500
"""Draws of the bootstrap."""
WIDER = 0.5
"""For each name that is tuned its spread is stretched by so much, and by 1: the lowest few losses
tell it badly, the worse the more names there are (docs/statistics.md)."""


@dataclass(frozen=True, slots=True)
class BestOf:
    """The lowest loss of k trials.

    Args:
        k: trials, the default among them.
        loss: expected; None where all of k trials may have diverged.
        off: equally likely values of what the loss of k trials lies above its expectation, each of
            one draw of points, which is the same for all arms.
    """

    k: int
    loss: float | None
    off: tuple[float, ...]

    def low_high(self, confidence: float) -> tuple[float, float] | None:
        """The interval of the expected loss."""
        if self.loss is None or not self.off:
            return None
        tail = (1 - confidence) / 2
        low, high = np.quantile(self.off, (tail, 1 - tail))
        return self.loss - float(high), self.loss - float(low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """The tuning of one arm by design.

    Args:
        over: what is tuned.
        trials: value of each of these, and the loss (None if diverged), or the metric that
            decides, in order; the default first.
        found: what each trial is chosen by, the less the better: the loss, the metric as a cost or,
            with a target, the log of the tokens to it (:func:`.trial_scores.losses_of`).
        chosen: the values that are compared; None before they are known.
        best: of 1, 2, 4, ... trials and of all.
        reached: whether each trial reached the target; None without one.
    """

    over: tuple[str, ...]
    trials: tuple[tuple[tuple[float, ...], float | None], ...]
    found: tuple[float | None, ...]
    chosen: tuple[float, ...] | None
    best: tuple[BestOf, ...]
    reached: tuple[bool, ...] | None = None

    @property
    def lowest(self) -> int | None:
        """The trial that is chosen; None if all diverged."""
        known = [(loss, i) for i, loss in enumerate(self.found) if loss is not None]
        return min(known)[1] if known else None

    @property
    def whole(self) -> BestOf:
        """Expected loss after all trials."""
        return self.best[-1]


def tuned(
    tuning: TuningPlan,
    name: str,
    arm: Arm,
    losses: Losses,
    used: Point | None,
    ends: Losses,
    reached: Mapping[Point, bool] | None = None,
) -> Tuned | None:
    """Result of an arm's trials; None before its default has been tried.

    Args:
        tuning: of the plan.
        name: of the arm.
        arm: with its defaults.
        losses: what its finished trials are chosen by.
        used: what is compared.
        ends: the loss or the metric of each, at its end.
        reached: whether each reached the target, if there is one.
    """
    made, _ = trials(tuning, name, arm, losses)
    if not made or made[0] != point(arm, {}):
        return None
    found = tuple(losses[at] for at in made)
    return Tuned(
        over=tuning.over,
        trials=tuple((tuple(value_at(at, what) for what in tuning.over), ends[at]) for at in made),
        found=found,
        chosen=tuple(value_at(used, what) for what in tuning.over) if used else None,
        best=best_of(found, len(tuning.over), in_turn=tuning.sampler == "tpe"),
        reached=None if reached is None else tuple(reached[at] for at in made),
    )


def best_of(
    losses: Sequence[float | None], names: int = 2, *, in_turn: bool = False
) -> tuple[BestOf, ...]:
    """The expected lowest loss of 1, 2, 4, ... trials and of all of them.

    Args:
        losses: of the trials, the default's first; None for one that diverged.
        names: that are tuned.
        in_turn: whether each trial was chosen by those before it. Then k trials are the first k.
    """
    values = np.array([np.inf if loss is None else loss for loss in losses])
    ks = budgets(len(values))
    found = []
    for k in ks:
        rest = values[1:k] if in_turn else values[1:]
        loss = float(expected_best(values[0], rest, k))
        off = _off(values[0], rest, k, 1 + WIDER * names) if np.isfinite(loss) else ()
        found.append(BestOf(k, loss if np.isfinite(loss) else None, off))
    return tuple(found)


def budgets(trials: int) -> tuple[int, ...]:
    """1, 2, 4, ... up to all trials."""
    powers = [2**i for i in range(trials.bit_length()) if 2**i < trials]
    return *powers, trials


def expected_best(first: float, rest: Floats, k: int) -> Floats:
    """Mean lowest loss of the first trial and k - 1 of the others (..., N), over all choices."""
    number, taken = rest.shape[-1], k - 1
    if not taken:
        return np.full(rest.shape[:-1], first)
    lowest = np.minimum(np.sort(rest, axis=-1), first)
    ways = [comb(number - r, taken - 1) for r in range(1, number + 1)]
    share = np.array(ways, float) / comb(number, taken)
    met = share > 0
    mean: Floats = lowest[..., met] @ share[met]
    return mean


def _off(first: float, rest: Floats, k: int, wider: float) -> tuple[float, ...]:
    """By how much other draws of the points would have given more than they do in the mean.

    The draws are the same for all arms with as many trials.
    """
    if k == 1 or rest.size < 2:
        return (0.0,) * DRAWS
    drawn = np.random.default_rng(0).integers(rest.size, size=(DRAWS, rest.size))
    again = expected_best(first, rest[drawn], k)
    again = np.minimum(again, again[np.isfinite(again)].max())
    return tuple((wider * (again - again.mean())).tolist())

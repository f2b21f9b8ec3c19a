"""One ladder for all seeds, where only the first ones have rungs (``comparison.ladder_seeds``).

    L_i(t) = L_i(1) + D(t),    D(t) = mean of L_j(t) - L_j(1) over the seeds j that have rungs

L_i(1) is seed i's own loss at the common budget. A token ratio is about a loss difference over the
ladder's slope, so an error of D counts only in proportion to what is saved. It is the same for all
seeds and so not in the spread between them: :func:`ladder_error` says what it adds.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .ladder import read_ladders

SHARED = 0.5
"""Correlation of two rungs' falls: the run at the common budget is in both."""


@dataclass(frozen=True, slots=True)
class MeanLadder:
    """The falls that seeds have in common.

    Args:
        unit: tokens of the common budget.
        fall: by tokens, mean of the loss there less that at the common budget; 0 there.
        sd: of one seed's fall around the mean, over all rungs; nan where no rung has two seeds.
        seeds: with rungs.
        seeds_of: by tokens, those whose run there did not diverge.
    """

    unit: int
    fall: Mapping[int, float]
    sd: float
    seeds: int
    seeds_of: Mapping[int, int]

    def of(self, loss: float) -> list[tuple[int, float]]:
        """Tokens and losses of the ladder of a seed with this loss at the common budget."""
        return [(tokens, loss + fall) for tokens, fall in sorted(self.fall.items())]


def mean_ladder(ladders: Sequence[Mapping[int, float]], unit: int) -> MeanLadder | None:
    """The mean of some seeds' ladders.

    Args:
        ladders: losses by tokens of each seed; those without ``unit`` tell nothing.
        unit: tokens of the common budget.

    Returns:
        None without a rung beside the common budget.
    """
    whole = [ladder for ladder in ladders if unit in ladder and len(ladder) > 1]
    falls: dict[int, list[float]] = {unit: [0.0]}
    for ladder in whole:
        for tokens in ladder.keys() - {unit}:
            falls.setdefault(tokens, []).append(ladder[tokens] - ladder[unit])
    if len(falls) < 2:
        return None
    mean = {tokens: statistics.fmean(values) for tokens, values in falls.items()}
    squares = sum((v - mean[tokens]) ** 2 for tokens, values in falls.items() for v in values)
    degrees = sum(len(values) - 1 for values in falls.values())
    sd = math.sqrt(squares / degrees) if degrees else math.nan
    seeds_of = {tokens: len(values) for tokens, values in falls.items()} | {unit: len(whole)}
    return MeanLadder(unit, mean, sd, len(whole), seeds_of)


def ladder_error(
    mean: MeanLadder, pairs: Sequence[tuple[float, float]], sd_of_pairs: float
) -> float:
    """Standard deviation that the mean ladder's error adds to the mean log token ratio.

    With G_r the change of the mean log ratio where the fall of rung r is moved by its standard
    error, up or down, whichever changes more (at an end of the ladder one way changes nothing), and
    correlations of 1/2 between rungs:

        error^2 = (sum of G_r^2 + (sum of G_r)^2) / 2

    Args:
        mean: the ladder.
        pairs: losses at the common budget of baseline and arm, of each seed.
        sd_of_pairs: standard deviation of their difference, in the loss; a rung is taken to be as
            noisy at the least, since a few seeds tell little of it.
    """
    noise = max((v for v in (mean.sd, sd_of_pairs) if math.isfinite(v)), default=0.0)
    rungs = sorted(mean.fall)
    x = [math.log(tokens) for tokens in rungs]

    def ratio(moved: int = mean.unit, by: float = 0.0) -> float:
        falls = [mean.fall[t] + (by if t == moved else 0.0) for t in rungs]
        losses = [[base + fall for fall in falls] for base, _ in pairs]
        logs, _ = read_ladders(x, losses, [loss for _, loss in pairs])
        return float(logs.mean())

    still = ratio()

    def change(moved: int) -> float:
        step = noise / math.sqrt(mean.seeds_of[moved])
        return max(ratio(moved, step) - still, still - ratio(moved, -step), key=abs)

    changes = [change(t) for t in rungs if t != mean.unit]
    return math.sqrt((sum(c * c for c in changes) + sum(changes) ** 2) * SHARED)


@functools.cache
def normal_values(number: int) -> tuple[float, ...]:
    """Equally likely values of a standard normal number, rising."""
    normal = statistics.NormalDist()
    return tuple(normal.inv_cdf((i + 0.5) / number) for i in range(number))

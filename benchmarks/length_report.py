"""A study of lengths as tables: each arm at its best rate, and at the baseline's."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from mars_optim.experiment.analysis.stats import t_interval
from mars_optim.experiment.plan import Plan

from . import rate_search
from .length_search import Losses, Settings, Trial, best_octave
from .rate_search import rate_of

WALL = 0.1  # share of the loss

Three = tuple[float, float, float]
"""Losses at half the best rate, at it, and at twice it."""


class Valley(NamedTuple):
    """An arm at one length, seed by seed: its lowest losses; the fitted rate; flatness."""

    lowest: dict[int, float]
    rate: float
    width: float
    """Octaves of rates whose loss is within 1 % of the lowest, by the parabola of the mean loss and
    bend: a mean of widths would be that of the flattest seed. NaN where no seed has a valley."""


def valley(losses: Losses, settings: Settings, length: int, arm: str) -> Valley | None:
    """The parabola y = mid + slope x + bend x^2 through the best rate (x = 0), and beside it."""
    best = best_octave(losses, settings, length, arm)
    if best is None:
        return None
    threes = {}
    for seed in settings.seeds:
        left, mid, right = (losses.get(Trial(length, arm, best + o, seed)) for o in (-1, 0, 1))
        if left is not None and mid is not None and right is not None:
            threes[seed] = left, mid, right
    if _is_wall(threes.values()):
        return Valley(lowest_of(threes), rate_of(best), math.nan)
    points = [point for three in threes.values() if (point := rate_search.lowest(*three))]
    place = statistics.mean(point.place for point in points) if points else 0.0
    inside = [point for point in points if abs(point.place) < 1.0]
    return Valley(lowest_of(threes), rate_of(best + place), _within(inside))


def lowest_of(threes: Mapping[int, Three]) -> dict[int, float]:
    """The loss of each seed at the lowest point of its parabola; behind a wall, at the best rate.

    A seed without a valley has the lowest of its three.
    """
    if _is_wall(threes.values()):
        return {seed: mid for seed, (_, mid, _) in threes.items()}
    points = {seed: rate_search.lowest(*three) for seed, three in threes.items()}
    return {s: min(threes[s]) if point is None else point.loss for s, point in points.items()}


def _is_wall(threes: Collection[Three]) -> bool:
    """Whether the mean loss at a rate beside the best is far above it, or infinite.

    A parabola through it would fall below every run, by an eighth of that height: it is of the
    wall, not of the valley. Then the best rate of the grid is read.
    """
    if not threes:
        return False
    left, mid, right = map(statistics.fmean, zip(*threes, strict=True))
    return max(left, right) > mid + WALL * abs(mid)


def _within(valleys: Sequence[rate_search.Lowest]) -> float:
    """Octaves in which loss <= lowest + 1 % of |lowest|: y - lowest = bend x^2."""
    if not valleys:
        return math.nan
    loss = statistics.mean(point.loss for point in valleys)
    bend = statistics.mean(point.bend for point in valleys)
    return 2.0 * math.sqrt(0.01 * abs(loss) / bend)


def table(plan: Plan, settings: Settings, losses: Losses) -> str:
    """Both comparisons as Markdown."""
    lines = []
    base = plan.comparison.baseline
    for length in settings.lengths:
        reference = valley(losses, settings, length, base)
        if reference is None:
            continue
        octave = best_octave(losses, settings, length, base)
        assert octave is not None
        steps, rate = length * plan.training.steps, rate_of(octave)
        same = "".join(f" at x{2.0**o:g} of {base}'s rate |" for o in settings.octaves)
        lines += [
            "",
            f"{steps:,} steps (x{length}); equal rate: {rate:g}",
            "",
            f"| arm | rate | within 1 % (octaves) | loss | less {base}'s |{same}",
            "| --- | --- | --- | --- | --- |" + " --- |" * len(settings.octaves),
        ]
        for arm in settings.arms:
            its = valley(losses, settings, length, arm)
            if its is None:
                continue
            seeds = [s for s in its.lowest if s in reference.lowest]
            own = [its.lowest[s] - reference.lowest[s] for s in seeds]
            both = (arm, base)
            at = [
                _at_rate(losses, length, octave + o, both, settings.seeds) for o in settings.octaves
            ]
            mean = statistics.mean(its.lowest.values())
            lines.append(
                f"| {arm} | {its.rate:.3g} | {_octaves(its.width)} | {mean:.4f} | "
                + " | ".join(map(told, (own, *at)))
                + " |"
            )
    return "\n".join(lines).strip() + "\n"


def _at_rate(
    losses: Losses, length: int, octave: int, arms: tuple[str, str], seeds: Iterable[int]
) -> list[float]:
    """Differences of two arms at one rate, by the seeds that both have."""
    pairs = [tuple(losses.get(Trial(length, a, octave, s)) for a in arms) for s in seeds]
    return [x - y for x, y in pairs if x is not None and y is not None]


def _octaves(width: float) -> str:
    return "-" if math.isnan(width) else f"{width:.1f}"


def told(differences: Sequence[float]) -> str:
    """Mean difference with its 95 % interval, and the number of pairs; one by one if too few."""
    if len(differences) < 2 or not all(map(math.isfinite, differences)):
        return " ".join(f"{d:+.4f}" for d in differences) or "-"
    gap = t_interval(differences, 0.95)
    return f"{gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f}), n={len(differences)}"

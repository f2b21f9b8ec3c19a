"""The search for an arm's best rate on a grid of factors of two, and the parabola through it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

UNIT = 1e-3  # rates are UNIT times a power of two
BEYOND = 7  # powers of two on both sides of UNIT, at the most
DIVERGED = math.inf

ByOctave = Mapping[int, float]
"""Losses of one arm and seed, by powers of two from UNIT."""


def rate_of(octave: float) -> float:
    """The learning rate so many powers of two from UNIT."""
    rate: float = UNIT * 2.0**octave
    return rate


def octave_of(rate: float) -> int:
    """The nearest power of two from UNIT."""
    return round(math.log2(rate / UNIT))


def missing(losses: ByOctave, start: int) -> list[int]:
    """The octaves to be tried next: three at first, then beyond the best one; none at the end."""
    tried = set(losses) | {start - 1, start, start + 1}
    if tried != set(losses):
        return sorted(tried - set(losses))
    best = min(tried, key=losses.__getitem__)
    return [o for o in sorted({best - 1, best + 1} - tried) if abs(o) <= BEYOND]


class Lowest(NamedTuple):
    """The lowest point of a parabola: its place in octaves from the middle, loss and bend."""

    place: float
    loss: float
    bend: float


def lowest(left: float, mid: float, right: float) -> Lowest | None:
    """Lowest point of y = mid + slope x + bend x^2 through x = -1, 0, 1; None where that is no
    valley."""
    bend = (left + right) / 2.0 - mid
    if not math.isfinite(bend) or bend <= 0.0:
        return None
    slope = (right - left) / 2.0
    place = max(-1.0, min(1.0, -slope / (2.0 * bend)))
    return Lowest(place, mid + slope * place + bend * place**2, bend)


def fitted_rate(losses: ByOctave) -> float:
    """The rate of the lowest point through the best octave and its neighbours."""
    best = min(losses, key=losses.__getitem__)
    found = lowest(*(losses.get(best + o, DIVERGED) for o in (-1, 0, 1)))
    return rate_of(best + (found.place if found else 0.0))

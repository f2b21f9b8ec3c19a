"""Constants of ``gamma="auto"``, the same in PyTorch and JAX."""

from __future__ import annotations

import math
from collections.abc import Sequence

FIRST, EVERY = 20, 10  # steps until gamma is first set, and between settings
GAIN = 0.02  # of the next gradient's verdict, a step: it settles in some tens of steps
HIGHEST = 0.5  # gamma: beyond, the average is hardly one
RATE = 0.05  # of gamma, at most, at a time
SAMPLE = 1 << 10  # elements of a tensor, at the most


def moved(gamma: float, agreement: float) -> float:
    """Gamma moved by GAIN times the agreement, by RATE at most, within [0, HIGHEST]."""
    move = min(RATE, max(-RATE, GAIN * agreement))
    return min(HIGHEST, max(0.0, gamma + move))


def spacing(shape: Sequence[int]) -> int:
    """Between sampled elements: the least that meets SAMPLE at most, columns alike.

    A distance that shares a factor with the length of a row would meet some columns alone.
    """
    apart, row = max(1, -(-math.prod(shape) // SAMPLE)), shape[-1] if shape else 1
    while math.gcd(apart, row) > 1:
        apart += 1
    return apart


def sampled(shape: Sequence[int]) -> int:
    """How many elements of a tensor of this shape are looked at."""
    return -(-math.prod(shape) // spacing(shape))

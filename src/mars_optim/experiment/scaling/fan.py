"""The forecast along a way: over sizes at the target's length, over lengths at its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .forecast import Posterior, TokenRatio, log_ratios_along
from .table import Table

POINTS = 9


@dataclass(frozen=True, slots=True)
class Band:
    """The forecast at one point of the way.

    Args:
        parameters: there.
        tokens: there.
        ratio: of tokens.
    """

    parameters: float
    tokens: float
    ratio: TokenRatio


@dataclass(frozen=True, slots=True)
class Fan:
    """The forecast of one arm from what was measured to the target.

    Args:
        sizes: at the target's tokens per parameter.
        lengths: at the target's parameters.
    """

    sizes: tuple[Band, ...]
    lengths: tuple[Band, ...]


def fan(table: Table, found: Posterior, arm: int, parameters: float, tokens: float) -> Fan:
    """The fan of one arm.

    Args:
        table: of losses.
        found: the law.
        arm: its number.
        parameters: of the target.
        tokens: of the target.
    """
    cells, length = table.cells(0), tokens / parameters
    sizes = _way([n for n, _ in cells], parameters)
    lengths = _way([d / n for n, d in cells], length)

    def bands(way: list[tuple[float, float]]) -> tuple[Band, ...]:
        logs = log_ratios_along(table, found, way)[:, :, arm - 1]
        return tuple(Band(*at, TokenRatio.of(logs[:, i])) for i, at in enumerate(way))

    return Fan(
        bands([(size, length * size) for size in sizes]),
        bands([(parameters, each * parameters) for each in lengths]),
    )


def _way(measured: Sequence[float], target: float) -> list[float]:
    """From the least to the largest, both at equal steps of the logarithm."""
    ends = min(*measured, target), max(*measured, target)
    if ends[1] < 1.01 * ends[0]:
        return [target]
    inner = np.geomspace(*ends, POINTS)[1:-1].tolist()
    return sorted({*ends, *inner, target})

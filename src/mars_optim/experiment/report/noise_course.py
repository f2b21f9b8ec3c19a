"""The noise over training, as the candidate's own steps saw it, and what MARS did to it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..analysis import Analysis
from ..analysis.noise import NoisePoint
from . import numbers
from .document import Cell, Picture, Table
from .messages import Messages

ROWS = 8  # of the table


def picture(analysis: Analysis, words: Messages, svg: str) -> Picture:
    """Noise and signal, and correction and clip, over tokens; a table of the same."""
    points, name = analysis.noise, analysis.candidate.name
    first, last = points[0], points[-1]
    head = ("training-tokens", "noise-scale", "signal-squared", "noise-squared", "correction-ratio")
    data = Table(
        words("figure.course.data", arm=name),
        (*(words(column) for column in head), words("clip-rate"), words("gamma")),
        tuple(_row(point, words) for point in _some(points)),
    )
    text = words(
        "figure.course.text",
        arm=name,
        first=_scale(first, words),
        last=_scale(last, words),
        ratio=last.correction_ratio,
        clip=last.clip_rate,
    )
    return Picture("course", text, words("figure.course.caption"), data, svg)


def _some(points: Sequence[NoisePoint]) -> list[NoisePoint]:
    """Evenly spaced, the last among them."""
    step = max(1, len(points) // ROWS)
    return list(points[len(points) - 1 :: -step][::-1])


def _row(point: NoisePoint, words: Messages) -> tuple[Cell, ...]:
    return (
        Cell(numbers.count(point.tokens)),
        Cell(_scale(point, words)),
        Cell(f"{point.signal:.3g}"),
        Cell(f"{point.noise:.3g}"),
        Cell(f"{point.correction_ratio:.2f}"),
        Cell(words.percent(point.clip_rate)),
        Cell(f"{point.gamma:.3g}"),
    )


def _scale(point: NoisePoint, words: Messages) -> str:
    return words("none") if math.isinf(point.scale) else f"{point.scale:.3g}"

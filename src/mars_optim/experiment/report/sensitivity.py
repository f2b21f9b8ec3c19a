"""How much the learning rate matters, for each arm and gamma."""

from __future__ import annotations

from collections.abc import Sequence

from ..analysis import Analysis
from ..analysis.sensitivity import Line, Range
from .document import Cell, Picture, Table
from .messages import Messages


def picture(analysis: Analysis, words: Messages, svg: str) -> Picture:
    """The map of losses, with the safe ranges as a table."""
    head = ("arm", "gamma", "best-loss", "safe-range", "beats-range")
    data = Table(
        words("figure.sensitivity.data"),
        tuple(words(column) for column in head),
        tuple(_row(line, words) for line in analysis.sensitivity),
    )
    ranges = words("list-separator").join(
        words(
            "figure.sensitivity.range",
            line=label(line, analysis.sensitivity),
            bound=_bound(line.safe),
            factor=line.safe.factor,
        )
        for line in analysis.sensitivity
        if line.safe
    )
    text = words("figure.sensitivity.text", ranges=ranges)
    return Picture("sensitivity", text, words("figure.sensitivity.caption"), data, svg)


def label(line: Line, lines: Sequence[Line]) -> str:
    """The arm; with its gamma, if it has one or was run at several."""
    several = sum(other.arm == line.arm for other in lines) > 1
    return f"{line.arm}, \u03b3 {line.gamma:.3g}" if line.gamma or several else line.arm


def _row(line: Line, words: Messages) -> tuple[Cell, ...]:
    return (
        Cell(line.arm, arm=line.arm),
        Cell(f"{line.gamma:.3g}"),
        Cell(words("diverged") if line.best is None else f"{line.best:.4f}"),
        _range(line.safe, words),
        _range(line.beats_baseline, words),
    )


def _range(value: Range | None, words: Messages) -> Cell:
    if value is None:
        return Cell(words("none"))
    factor = words("range.factor", bound=_bound(value), factor=value.factor)
    return Cell(words("range", low=value.low, high=value.high), factor)


def _bound(value: Range) -> str:
    return "\u2265 " if value.censored else ""

"""The end of a run, by its losses: a number that is none, or only no value?

A log may write NaN where nothing was logged, and so may a run that diverged. So a NaN counts by
what follows it. One that a finite loss follows was none of the run's end. One that nothing
follows is the end, unless rows of the same kind stood for no value earlier in this run: then
nobody can tell, and nobody decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ...errors import UserError

_NO_VALUE = frozenset({"", "na", "n/a", "<na>", "null", "none", "-"})

Kind = tuple[str, str]
"""Kinds of a row's training and validation loss: "none", "finite" or "bad"."""


@dataclass(slots=True)
class End:
    """Follows the losses row by row.

    Args:
        blank: kinds of rows whose NaN is known to stand for no value.
    """

    blank: set[Kind] = field(default_factory=set)
    doubts: dict[Kind, tuple[int, str, float]] = field(default_factory=dict)

    def add(self, step: int, train: float | None, valid: float | None) -> str:
        """Take the losses of one row.

        Returns:
            Why the run has diverged for sure, if it has: the row says nothing else.
        """
        kind = (_state(train), _state(valid))
        if "finite" in kind:
            self._clear(step, kind)
        if kind == ("bad", "finite"):  # validation comes after training: the weights are good
            self.blank.add(kind)
        elif "bad" in kind:
            what, value = ("training", train) if kind[0] == "bad" else ("validation", valid)
            assert value is not None
            known = self.doubts.get(kind)
            if known is None or (math.isinf(value) and not math.isinf(known[2])):
                self.doubts[kind] = (step, f"{what} loss {value} at step {step}", value)
            if "none" in kind and (math.isinf(value) or kind not in self.blank):
                return self.doubts[kind][1]
        return ""

    def _clear(self, step: int, kind: Kind) -> None:
        for other, (at, _, value) in list(self.doubts.items()):
            same = any(o == "bad" and k == "finite" for o, k in zip(other, kind, strict=True))
            if at < step or (at == step and (same or kind[1] == "finite")):
                del self.doubts[other]
                if math.isnan(value):
                    self.blank.add(other)

    def broken(self, valid_step: int, steps: int) -> str:
        """Why the run has diverged, if it has.

        Args:
            valid_step: of its last finite validation loss; -1 without any.
            steps: of the whole run; 0 if not known.
        """
        left = self._left(valid_step, steps)
        sure = [w for kind, (_, w, v) in left.items() if math.isinf(v) or kind not in self.blank]
        return sure[0] if sure else ""

    def unclear(self, valid_step: int, steps: int) -> str:
        """A value that may mean a divergence or no value, if there is one."""
        if steps and valid_step >= steps - 1:
            return ""
        left = self._left(valid_step, steps)
        return next((what for _, what, _ in left.values()), "")

    def _left(self, valid_step: int, steps: int) -> dict[Kind, tuple[int, str, float]]:
        return {
            kind: doubt
            for kind, doubt in self.doubts.items()
            if doubt[0] > valid_step and not 0 < steps < doubt[0]
        }


def _state(loss: float | None) -> str:
    return "none" if loss is None else "finite" if math.isfinite(loss) else "bad"


def number(row: dict[str, Any], column: str) -> float | None:
    """The number in a column; None where there is no value.

    Raises:
        UserError: if it is neither.
    """
    value = row.get(column)
    if value is None or (isinstance(value, str) and value.strip().lower() in _NO_VALUE):
        return None
    try:
        if not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    hint = ""
    if isinstance(value, str) and value.count(",") == 1:
        hint = "; write a decimal point, not a comma"
    raise UserError(f"{column!r} is not a number: {str(value)[:60]!r}{hint}")


def finite(row: dict[str, Any], column: str) -> float | None:
    """The finite number in a column; None where there is none.

    Raises:
        UserError: if it is no number.
    """
    value = number(row, column)
    return value if value is not None and math.isfinite(value) else None


def step_of(row: dict[str, Any], column: str) -> int | None:
    """The step in a row; None where there is no value.

    Raises:
        UserError: if it is no whole number from 0.
    """
    value = number(row, column)
    if value is None:
        return None
    if not (math.isfinite(value) and value >= 0 and value == int(value)):
        raise UserError(f"{column!r} is {value:g}: a step must be a whole number, at least 0")
    return int(value)

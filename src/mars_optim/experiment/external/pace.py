"""The time of a step by when its rows came, for a command that does not tell its seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .losses import finite, step_of
from .recorder import Columns

CLEAR = 5.0  # looks that the steps must last for


@dataclass(slots=True)
class Pace:
    """Adds up the seconds between looks that found rows of training and nothing else.

    What lies before the first row (the start, the first step) and around an evaluation is left
    out. A row is as old as the look that found it, at the most one look younger.

    Args:
        columns: names in the rows.
        seconds: between such looks, so far.
        steps: taken in these seconds.
    """

    columns: Columns
    seconds: float = 0.0
    steps: int = 0
    _last: tuple[float, int] | None = None  # the look at the newest training row, and its step

    def look(self, rows: Sequence[dict[str, Any]], now: float) -> None:
        """Take the rows that a look at time ``now`` found."""
        c = self.columns
        if any(finite(row, c.valid_loss) is not None for row in rows):
            self._last = None  # an evaluation took some of the time
            return
        trained = (row for row in rows if c.loss and finite(row, c.loss) is not None)
        newest = max(
            (step for row in trained if (step := step_of(row, c.step)) is not None), default=None
        )
        if newest is None:
            return
        if self._last and newest > self._last[1]:
            self.seconds += now - self._last[0]
            self.steps += newest - self._last[1]
        self._last = (now, newest)

    def step_seconds(self, resolution: float) -> float | None:
        """Seconds of one step; None if the rows came too late, too few or too close to tell.

        Args:
            resolution: seconds between two looks.
        """
        return self.seconds / self.steps if self.seconds > CLEAR * resolution else None

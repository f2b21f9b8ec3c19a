"""Counts that a log tells: of the run so far, or by mistake of each step alone?"""

from __future__ import annotations

import math
from dataclasses import dataclass

FAR = 8  # times its first step that the last one must be: rounding cannot hide growth over these
GROWS = 0.75  # least share of the rows at which a count of the run so far grows
FALLS = 0.25  # least share at which numbers of single steps fall, with SOME of them at least
SOME = 2


@dataclass(slots=True)
class Count:
    """Follows a column from step to step.

    A row at a step that was there already tells nothing: an evaluation, or a run that went back.

    Args:
        first: step and value of the first row with a value above 0.
        last: likewise, of the last one.
        rows: that came after the first, each at a later step than all before it.
        grew: rows whose value is above that of the row before.
        fell: rows whose value is below.
    """

    first: tuple[int, float] = (0, 0.0)
    last: tuple[int, float] = (0, 0.0)
    rows: int = 0
    grew: int = 0
    fell: int = 0

    def add(self, step: int, value: float) -> None:
        """Take one row."""
        if step <= self.last[0] or (not self.first[0] and value <= 0):
            return
        if self.first[0]:
            self.rows += 1
            self.grew += value > self.last[1]
            self.fell += value < self.last[1]
        else:
            self.first = (step, value)
        self.last = (step, value)

    @property
    def of_single_steps(self) -> bool:
        """Whether it does not grow with the steps, and would if it counted the run so far."""
        return self._stays and self.grew < GROWS * self.rows

    @property
    def falls(self) -> bool:
        """As :attr:`of_single_steps`, by falls alone: seconds stay where a first step took long."""
        return self._stays and self.fell >= max(SOME, FALLS * self.rows)

    @property
    def _stays(self) -> bool:
        """Whether it grew by far less than the steps did: by less than their square root."""
        (start, low), (end, high) = self.first, self.last
        return self.rows > 0 and end >= FAR * start and high < low * math.sqrt(end / start)

    def __str__(self) -> str:
        """Both ends, for a message."""
        (start, low), (end, high) = self.first, self.last
        return f"{low:g} at step {start} and {high:g} at step {end}"

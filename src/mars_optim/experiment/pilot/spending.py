"""Time spent by a pilot, and the budget: beyond it nothing starts, and runs are ended."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ...errors import UserError
from ...files import read_json, write_json
from ..analysis.cost import pilot_price
from ..plan import Plan, RunSpec
from ..records import Failure
from ..records.run import BUDGET
from .retries import Timing

FILE = "spent.json"  # in the pilot's folder
WRITE_EVERY = 1.0
"""Seconds: a pilot that is ended from outside forgets at most these."""

LOST = Failure("failed", BUDGET, again="never")


class Spending:
    """Time of the pilot's machine while it works, over all its sessions, against the budget.

    Time is by the clock, from a session's first step on, whatever the number of workers. In a queue
    only time counts in which a job runs.

    Args:
        plan: with ``cost.budget`` and the price of an hour.
        out: folder of the pilot; ``spent.json`` in it holds the seconds, with or without a budget,
            which may be set later.
        clock: seconds (default: that of the machine).

    Raises:
        UserError: if the file is there and cannot be read.
    """

    def __init__(self, plan: Plan, out: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = out / FILE, clock
        per_hour = pilot_price(plan.cost)
        self.budget = 3600 * plan.cost.budget / per_hour if plan.cost.budget else math.inf
        self.seconds, self.whole = spent_seconds(out), _is_whole(out)
        self._last, self._written = clock(), -math.inf

    def beat(self, *, paid: bool = True) -> None:
        """Count the time since the last beat, if it is paid."""
        now = self._clock()
        if paid:
            self.seconds += now - self._last
        self._last = now
        if now - self._written >= WRITE_EVERY:
            self.close()

    def close(self) -> None:
        """Write the seconds; without a budget a failure to do so is in nobody's way."""
        self._written = self._last
        told = {"seconds": self.seconds} | ({} if self.whole else {"whole": False})
        with contextlib.suppress(*(() if self.budget < math.inf else (OSError,))):
            write_json(self._path, told)

    @property
    def unknown(self) -> str:
        """Sentence on time that a budget leaves out; empty if there is none, or no budget."""
        if self.whole or self.budget == math.inf:
            return ""
        return (
            "What this pilot spent at first is not known, since nobody counted it: the budget "
            f"leaves it out ({self.seconds / 3600:,.4g} h are counted so far)."
        )

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        return self.seconds >= self.budget

    def pays_for(
        self,
        spec: RunSpec,
        running: Sequence[tuple[RunSpec, int]],
        timings: Mapping[str, Timing],
        sharing: int,
    ) -> bool:
        """Whether a run that starts now will end within the budget, by the probe's step times.

        Args:
            spec: of the run.
            running: runs under way, with the steps that they have taken.
            timings: of each arm.
            sharing: runs at a time on one machine, each as much slower.
        """

        def needs(spec: RunSpec, taken: int) -> float:
            timing = timings[spec.arm_name]
            left = max(0, spec.steps - max(taken, spec.start))
            return (left * timing.step + timing.outside) * sharing

        longest = max(needs(s, taken) for s, taken in ((spec, 0), *running))
        return self.seconds + longest <= self.budget


def _is_whole(out: Path) -> bool:
    """Whether all sessions of the pilot in ``out`` counted their time; older programs did not."""
    path = out / FILE
    if path.exists():
        return read_json(path).get("whole", True) is not False
    return not any((out / "runs").glob("*/manifest.json"))


def spent_seconds(out: Path) -> float:
    """Seconds that the pilot in ``out`` has spent; 0 if nobody has counted.

    Raises:
        UserError: if the file is there and cannot be read.
    """
    path = out / FILE
    if not path.exists():
        return 0.0
    try:
        seconds = float(read_json(path)["seconds"])
    except (KeyError, TypeError, ValueError):
        seconds = math.nan
    if not 0.0 <= seconds < math.inf:
        raise UserError(
            f'{path} does not tell the seconds that were spent: write {{"seconds": N}} into it, '
            "or delete it to count from 0"
        )
    return seconds

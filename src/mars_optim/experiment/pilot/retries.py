"""How often, and for how long, a run is tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..plan import RunSpec
from ..plan.execution import RunningPlan
from ..records import Failure

SLOWER = 10.0  # a run may be this many times slower than the probe said,
GRACE = 600.0  # and take these seconds more, before it is taken to hang


@dataclass(frozen=True, slots=True)
class Timing:
    """Time that an arm takes, by the probe.

    Args:
        step: seconds of a step.
        outside: seconds of a run besides its steps: its start, its evaluations.
    """

    step: float
    outside: float = 0.0


class Retries:
    """The failed tries of this session; a new session tries everything again.

    Args:
        running: the plan's limits.
        timings: of each arm.
        sharing: runs at a time on one machine, each as much slower.
    """

    def __init__(self, running: RunningPlan, timings: Mapping[str, Timing], sharing: int) -> None:
        self._running = running
        self.timings = timings
        self._sharing = sharing
        self._failures: dict[str, list[Failure]] = {}
        self.given_up: dict[str, Failure] = {}

    def limit(self, spec: RunSpec) -> float:
        """Seconds that the run may take."""
        if self._running.limit_minutes:
            return 60.0 * self._running.limit_minutes
        timing = self.timings[spec.arm_name]
        return SLOWER * (spec.work * timing.step + timing.outside) * self._sharing + GRACE

    def again(self, run_id: str, failure: Failure) -> bool:
        """Take note of a failure; whether the run is to be tried again."""
        failures = self._failures.setdefault(run_id, [])
        if failure.again == "always":
            return True
        failures.append(failure)
        timed_out = sum(f.kind == "timed out" for f in failures)
        if len(failures) > self._running.retries or timed_out > 1 or failure.again == "never":
            self.given_up[run_id] = failure
        return run_id not in self.given_up

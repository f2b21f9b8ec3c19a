"""Progress of a pilot: on a terminal, as lines elsewhere, and in ``status.json``."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.live import Live
from rich.markup import escape

from ...files import write_json
from ..plan import RunSpec
from ..records import Failure, Outcome
from .liveness import STATUS as STATUS
from .liveness import State
from .retries import Timing
from .standing import OTHERS, RunProgress, Standing, describe_run, ended_line, view

STATUS_EVERY = 1.0  # seconds between writes of the status
SAY_EVERY = 60.0  # seconds between lines about why one and the same run waits


class Reporter:
    """Shows runs under way, a line for each that ended, and the time left.

    Args:
        console: to write to.
        status: file that tells ``mars watch`` the same, rewritten about once a second; None for
            none. What cannot be written is left out: nobody's runs end for it.
    """

    def __init__(self, console: Console, status: Path | None = None) -> None:
        self.console = console
        self._status, self._beat, self._written = status, 0, 0.0
        self.started = time.monotonic()
        self.first_run: float | None = None  # when it started
        self.fresh_steps = 0  # steps computed in this session, not read from disk
        self.planned_steps, self.planned_runs, self.done_steps, self.done_runs = 1, 1, 0, 0
        self.steps_per_second = 0.0
        self.outside = 0.0  # seconds that each run adds to its steps, over all workers
        self._running: dict[str, RunProgress] = {}
        self._waiting: dict[str, str] = {}  # for a machine: why
        self._told: dict[str, float] = {}  # when a line last said so
        self._live = Live("starting", console=console, refresh_per_second=5, transient=True)
        self.live = console.is_terminal

    def __enter__(self) -> Reporter:
        if self.live:
            self._live.start()
        self._write_status("running")
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if self.live:
            self._live.stop()
        self._write_status("stopped" if kind else "ended")

    def say(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, highlight=False, soft_wrap=not self.live)

    def plan(self, *, steps: int, runs: int, done_steps: int, done_runs: int) -> None:
        """How much there is to do in all, and how much of it is done."""
        self.planned_steps, self.planned_runs = steps, runs
        self.done_steps, self.done_runs = done_steps, done_runs
        self._refresh()

    def expect(self, timings: Mapping[str, Timing], workers: int) -> None:
        """Take the probe's expected times, until runs give better ones."""
        self.steps_per_second = workers * len(timings) / sum(t.step for t in timings.values())
        self.outside = fmean(t.outside for t in timings.values()) / workers

    def begin(self, spec: RunSpec) -> None:
        """A run starts."""
        self.first_run = self.first_run or time.monotonic()
        self._running[spec.run_id] = RunProgress(spec)

    def wait(self, name: str, why: str) -> None:
        """A run, or other work, waits for a machine; if nothing says why, it no longer does."""
        self._waiting.pop(name, None)
        if why:
            self._waiting[name] = why
        run, now = self._running.get(name), time.monotonic()
        shown = self.live and run is not None
        if why and not shown and now - self._told.get(name, -SAY_EVERY) >= SAY_EVERY:
            self._told[name] = now
            what = describe_run(run.spec) if run else OTHERS.get(name, name)
            self.say(f"         {what}: {escape(why)}")
        self._show()
        self._write_status("running")

    def advance(self, run_id: str, step: int) -> None:
        """A run has taken ``step`` steps."""
        self._running[run_id] = replace(self._running[run_id], step=step)
        self._refresh()

    def end(self, run_id: str, outcome: Outcome) -> None:
        """A run ended."""
        spec = self._drop(run_id)
        self.done_runs += 1
        self.done_steps += spec.work
        self.fresh_steps += spec.work
        line = ended_line(self.done_runs, self.planned_runs, spec, outcome)
        self.say(line if self.live else f"{line}  |  {self.standing('running').times}")
        self._refresh()

    def lose(self, run_id: str, failure: Failure, what_next: str) -> None:
        """A try of a run came to nothing."""
        run = describe_run(self._drop(run_id))
        self.say(f"         {run}: [red]{escape(str(failure))}[/]; {what_next}")
        self._refresh()

    def _drop(self, run_id: str) -> RunSpec:
        self._waiting.pop(run_id, None)
        return self._running.pop(run_id).spec

    @property
    def under_way(self) -> list[tuple[RunSpec, int]]:
        """Runs that have started, with the steps that they have taken."""
        return [(run.spec, run.step) for run in self._running.values()]

    @property
    def works(self) -> bool:
        """Whether a run is under way that does not wait for a machine."""
        return any(run_id not in self._waiting for run_id in self._running)

    def standing(self, state: State) -> Standing:
        """How the pilot stands now."""
        return Standing(
            state=state,
            done_runs=self.done_runs,
            planned_runs=self.planned_runs,
            share=(self.done_steps + self._under_way()) / self.planned_steps,
            seconds_gone=time.monotonic() - self.started,
            seconds_left=self.seconds_left(),
            rate=self.rate(),
            running=tuple(self._running.values()),
            waiting=dict(self._waiting),
        )

    def seconds_left(self) -> float | None:
        """From the speed so far in this session; before that from the probe."""
        under_way = self._under_way()
        fresh = self.fresh_steps + under_way
        speed, outside = self.steps_per_second, self.outside
        if (rate := self.rate()) and fresh > 0.02 * self.planned_steps:
            speed, outside = rate, 0.0
        if not speed:
            return None
        steps = max(0, self.planned_steps - self.done_steps - under_way)
        return steps / speed + outside * max(0, self.planned_runs - self.done_runs)

    def rate(self) -> float | None:
        """Steps per second since the first run of this session began, evaluations included."""
        fresh = self.fresh_steps + self._under_way()
        if self.first_run is None or not fresh:
            return None
        return fresh / max(1e-9, time.monotonic() - self.first_run)

    def _under_way(self) -> int:
        return sum(run.taken for run in self._running.values())

    def _refresh(self) -> None:
        self._show()
        if time.monotonic() - self._written > STATUS_EVERY:
            self._write_status("running")

    def _show(self) -> None:
        if self.live:
            self._live.update(view(self.standing("running"), bars=True))

    def _write_status(self, state: State) -> None:
        if self._status is None:
            return
        self._beat, self._written = self._beat + 1, time.monotonic()
        now = self.standing(state)
        data = {
            "state": state,
            "host": platform.node(),
            "pid": os.getpid(),
            "beat": self._beat,
            "planned_runs": now.planned_runs,
            "done_runs": now.done_runs,
            "share": now.share,
            "seconds_left": now.seconds_left,
            "steps_per_second": now.rate,
            "running": {run.spec.run_id: run.step for run in now.running},
            "waiting": now.waiting,
        }
        with contextlib.suppress(OSError):
            write_json(self._status, data)

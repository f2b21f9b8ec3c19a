"""What the terminal shows while a pilot runs: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from ...files import write_json
from ..plan import RunSpec
from ..records import Failure, Outcome
from .retries import Timing

PURPOSES = {
    "tune": "tuning the learning rate",
    "ladder": "baseline at another budget",
    "compare": "comparing at the tuned rates",
    "sensitivity": "how much rate and gamma matter",
    "train": "a run by itself",
}


STATUS = "status.json"  # in the pilot's folder
STATUS_EVERY = 1.0  # seconds between writes of the status
SAY_EVERY = 60.0  # seconds between lines about why one and the same run waits
OTHERS = {"starting": "loading the task", "probe": "timing one training step"}


def describe_run(spec: RunSpec) -> str:
    """One line: which run, and what for."""
    return (
        f"{spec.arm_name}, lr {spec.lr:.2g}, seed {spec.seed}, {spec.steps:,} steps "
        f"({PURPOSES[spec.purpose]})"
    )


def clock(seconds: float) -> str:
    """m:ss, or h:mm:ss from an hour on."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours}:{minutes:02}:{whole % 60:02}"
    return f"{minutes}:{whole % 60:02}"


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
        self._bars = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            console=console,
        )
        self._total = Progress(
            TextColumn("[bold]{task.description}"), BarColumn(bar_width=24), console=console
        )
        self._total_id = self._total.add_task("starting", total=1.0)
        self._rows: dict[str, tuple[RunSpec, TaskID, int]] = {}
        self._waiting: dict[str, str] = {}  # for a machine: why
        self._told: dict[str, float] = {}  # when a line last said so
        table = Table.grid()
        table.add_row(self._bars)
        table.add_row(self._total)
        self._live = Live(table, console=console, refresh_per_second=5, transient=True)
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
        """What the probe says of the time, before runs say more."""
        self.steps_per_second = workers * len(timings) / sum(t.step for t in timings.values())
        self.outside = fmean(t.outside for t in timings.values()) / workers

    def begin(self, spec: RunSpec) -> None:
        """A run starts."""
        self.first_run = self.first_run or time.monotonic()
        bar = self._bars.add_task(describe_run(spec), total=spec.steps)
        self._rows[spec.run_id] = (spec, bar, 0)

    def wait(self, name: str, why: str) -> None:
        """A run, or other work, waits for a machine; if nothing says why, it no longer does."""
        self._waiting.pop(name, None)
        if why:
            self._waiting[name] = why
        what = OTHERS.get(name, name)
        if name in self._rows:
            spec, bar, _ = self._rows[name]
            what = describe_run(spec)
            self._bars.update(bar, description=f"{what}: {why}" if why else what)
        now = time.monotonic()
        shown = self.live and name in self._rows
        if why and not shown and now - self._told.get(name, -SAY_EVERY) >= SAY_EVERY:
            self._told[name] = now
            self.say(f"         {what}: {escape(why)}")
        self._write_status("running")

    def advance(self, run_id: str, step: int) -> None:
        """A run has taken ``step`` steps."""
        spec, bar, _ = self._rows[run_id]
        self._rows[run_id] = (spec, bar, step)
        self._bars.update(bar, completed=step)
        self._refresh()

    def end(self, run_id: str, outcome: Outcome) -> None:
        """A run ended."""
        spec, bar, _ = self._rows.pop(run_id)
        self._waiting.pop(run_id, None)
        self._bars.remove_task(bar)
        self.done_runs += 1
        self.done_steps += spec.steps
        self.fresh_steps += spec.steps
        if outcome.final_loss is None:
            result = f"[red]diverged[/]: {escape(outcome.reason)}"
        else:
            result = f"loss [bold]{outcome.final_loss:.4f}[/]"
        line = f"{self.done_runs:>3}/{self.planned_runs}  {describe_run(spec)}: {result}"
        self.say(line if self.live else f"{line}  |  {self.status()}")
        self._refresh()

    def lose(self, run_id: str, failure: Failure, what_next: str) -> None:
        """A try of a run came to nothing."""
        spec, bar, _ = self._rows.pop(run_id)
        self._waiting.pop(run_id, None)
        self._bars.remove_task(bar)
        self.say(f"         {describe_run(spec)}: [red]{escape(str(failure))}[/]; {what_next}")
        self._refresh()

    def status(self) -> str:
        """Time gone, and an estimate of the time left."""
        gone = time.monotonic() - self.started
        left = self.seconds_left()
        return f"{clock(gone)} gone" + (f", about {clock(left)} left" if left is not None else "")

    def seconds_left(self) -> float | None:
        """From the speed so far in this session; before that from the probe."""
        under_way = sum(step for _, _, step in self._rows.values())
        fresh = self.fresh_steps + under_way
        speed, outside = self.steps_per_second, self.outside
        if self.first_run and fresh > 0.02 * self.planned_steps:
            speed, outside = fresh / (time.monotonic() - self.first_run), 0.0
        if not speed:
            return None
        steps = max(0, self.planned_steps - self.done_steps - under_way)
        return steps / speed + outside * max(0, self.planned_runs - self.done_runs)

    def _refresh(self) -> None:
        under_way = sum(step for _, _, step in self._rows.values())
        share = (self.done_steps + under_way) / self.planned_steps
        text = f"run {self.done_runs} of {self.planned_runs} done, {self.status()}"
        self._total.update(self._total_id, completed=min(1.0, share), description=text)
        if time.monotonic() - self._written > STATUS_EVERY:
            self._write_status("running")

    def _write_status(self, state: str) -> None:
        if self._status is None:
            return
        self._beat, self._written = self._beat + 1, time.monotonic()
        data = {
            "state": state,
            "host": platform.node(),
            "pid": os.getpid(),
            "beat": self._beat,
            "planned_runs": self.planned_runs,
            "done_runs": self.done_runs,
            "seconds_left": self.seconds_left(),
            "running": {run_id: step for run_id, (_, _, step) in self._rows.items()},
            "waiting": dict(self._waiting),
        }
        with contextlib.suppress(OSError):
            write_json(self._status, data)

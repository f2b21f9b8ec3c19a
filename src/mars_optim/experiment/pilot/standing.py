"""How a pilot stands, and how that is shown: by the pilot itself, and by whoever looks on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..plan import RunSpec
from ..records import Outcome
from .liveness import State

PURPOSES = {
    "tune": "tuning",
    "trunk": "at constant rate, for decays to branch off",
    "ladder": "at another budget",
    "compare": "comparing at the tuned rates",
    "sensitivity": "how much rate and gamma matter",
    "train": "a run by itself",
}
OTHERS = {"starting": "loading the task", "probe": "timing one training step"}


@dataclass(frozen=True, slots=True)
class RunProgress:
    """One run under way: which, how far, and its last loss where it is known."""

    spec: RunSpec
    step: int = 0
    loss: float | None = None

    @property
    def taken(self) -> int:
        """Steps that it has taken itself."""
        return max(0, self.step - self.spec.start)

    @property
    def share(self) -> float:
        """Share of its own steps that is done."""
        return self.taken / self.spec.work


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A pilot at one moment.

    Args:
        state: "waiting" before its first word, "running", "gone" if its process is no more though
            it never said so, "stopped" before its end, or "ended".
        done_runs: finished.
        planned_runs: as far as they are known; tuning may add rounds.
        share: of all steps that are done; None if not known.
        seconds_gone: of this session; None if not known.
        seconds_left: as the pilot estimates it.
        rate: steps per second of this session, over all workers; None if not known.
        running: runs under way.
        waiting: why what waits for a machine does, by the run's id.
    """

    state: State
    done_runs: int
    planned_runs: int
    share: float | None = None
    seconds_gone: float | None = None
    seconds_left: float | None = None
    rate: float | None = None
    running: tuple[RunProgress, ...] = ()
    waiting: Mapping[str, str] = field(default_factory=dict)

    @property
    def times(self) -> str:
        """Time gone, an estimate of the time left, and the rate, as far as they are known."""
        gone, left = self.seconds_gone, self.seconds_left
        parts = [f"{clock(gone)} gone"] if gone is not None else []
        parts += [f"about {clock(left)} left"] if left is not None else []
        return ", ".join(parts + ([speed(self.rate, "steps")] if self.rate else []))

    @property
    def headline(self) -> str:
        """All of it in a line."""
        text = f"{self.done_runs} of {self.planned_runs} runs done"
        if self.state == "waiting":
            return f"{text}; waiting for the pilot"
        return f"{text}, {self.times}" if self.times else text


@dataclass(frozen=True, slots=True)
class Line:
    """A run under way: its name, its progress if known, and other facts."""

    text: str
    share: float | None = None
    details: str = ""

    @property
    def state(self) -> str:
        """How far it is, and what else there is."""
        if self.share is None:
            return self.details
        return f"{math.floor(100 * self.share)} %{self.details}"

    def __str__(self) -> str:
        return f"{self.text}: {self.state}" if self.state else self.text


def lines(standing: Standing) -> list[Line]:
    """A line for each run under way, then one for each that waits for a machine."""
    waiting = dict(standing.waiting)
    found = []
    for run in standing.running:
        text, why = describe_run(run.spec), waiting.pop(run.spec.run_id, "")
        details = "" if run.loss is None else f", loss {run.loss:.4f}"
        found.append(Line(f"{text}: {why}" if why else text, run.share, details))
    return found + [Line(OTHERS.get(name, name), None, why) for name, why in waiting.items()]


def view(standing: Standing, *, bars: bool) -> RenderableType:
    """The headline and the lines; bars are for a terminal."""
    shown = lines(standing)
    if not bars:
        return Group(Text(standing.headline, style="bold"), *(Text(f"  {line}") for line in shown))
    head = Line(standing.headline, standing.share)
    return with_bars([head, *(Line(f"  {x.text}", x.share, x.details) for x in shown)])


def with_bars(shown: Sequence[Line]) -> RenderableType:
    """Lines below each other, each with a bar."""
    table = Table.grid(padding=(0, 1))
    for line in shown:
        bar = "" if line.share is None else ProgressBar(1.0, min(1.0, line.share), width=24)
        table.add_row(Text(line.text), bar, Text(line.state))
    return table


def ended_line(number: int, planned: int, spec: RunSpec, outcome: Outcome) -> str:
    """A run that has ended, in a line of rich's markup."""
    if outcome.status == "diverged":
        result = f"[red]diverged[/]: {escape(outcome.reason)}"
    else:
        loss = {} if outcome.final_loss is None else {"loss": outcome.final_loss}
        told = (loss | outcome.scores).items()
        result = ", ".join(f"{escape(name)} [bold]{value:.4f}[/]" for name, value in told)
    return f"{number:>3}/{planned}  {describe_run(spec)}: {result}"


def describe_run(spec: RunSpec) -> str:
    """One line: which run, and what for."""
    steps = f"{spec.steps:,} steps"
    if spec.trunk:
        steps = f"decay over steps {spec.start:,} to {spec.steps:,}"
    return (
        f"{spec.arm_name}, lr {spec.lr:.2g}, seed {spec.seed}, {steps} ({PURPOSES[spec.purpose]})"
    )


def speed(per_second: float, units: str) -> str:
    """Rate in its natural direction: ``12 steps/s``, or ``3.4 s a step`` below one a second."""
    if per_second < 1:
        return f"{1 / per_second:.3g} s a {units.removesuffix('s')}"
    number = f"{per_second:,.3g}" if per_second < 1000 else f"{per_second:,.0f}"
    return f"{number} {units}/s"


def clock(seconds: float) -> str:
    """m:ss, or h:mm:ss from an hour on."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours}:{minutes:02}:{whole % 60:02}"
    return f"{minutes}:{whole % 60:02}"

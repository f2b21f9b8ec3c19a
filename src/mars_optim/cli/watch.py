"""``mars watch``: a pilot in another process, live in the terminal or as a page."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..experiment.analysis import Analysis
from ..experiment.pilot.standing import clock, ended_line, lines, view
from ..experiment.pilot.status import Snapshot, take
from ..experiment.records.trials import loss_at
from ..experiment.report import Lang, Messages
from ..experiment.report.numbers import signed
from ..experiment.report.savings import saving_interval

QUIET = 60.0  # seconds without a word from the pilot that are worth a word
LINE_EVERY = 30.0  # seconds between lines, where there is no terminal
ENDS = {
    "ended": "The pilot has ended.",
    "stopped": "The pilot was stopped before its end: run the same command again to continue.",
    "gone": "The pilot's process was ended from outside: run the same command again to continue.",
}
OUT_OF_BUDGET = (
    "The pilot has ended before all its runs were made, as its budget is spent: raise cost.budget "
    "and run the same command again to continue."
)


def watch(
    out: Path,
    console: Console,
    *,
    once: bool = False,
    every: float = 1.0,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show the pilot in ``out`` until it ends.

    Args:
        out: folder of the pilot.
        console: a terminal gets a picture that changes, anything else a line now and then.
        once: show it as it is and return.
        every: seconds between looks.
        sleep: waits.

    Raises:
        UserError: if there is no pilot in ``out``.
    """
    snapshot = take(out)
    if once or snapshot.state in ENDS:
        console.print(picture(snapshot, bars=console.is_terminal))
    elif console.is_terminal:
        _watch_live(out, console, every, sleep)
    else:
        _watch_lines(out, console, snapshot, every, sleep)


def serve(
    out: Path,
    console: Console,
    *,
    host: str,
    port: int,
    token: bool,
    every: float,
    lang: Lang,
) -> None:
    """Show the pilot in ``out`` as a page of a server of its own, until Ctrl-C.

    Args:
        out: folder of the pilot.
        console: is told the address.
        host: to listen on; beyond the loopback a token is asked for.
        port: 0 for a free one.
        token: ask for one on the loopback, too.
        every: seconds between looks.
        lang: of the page.

    Raises:
        UserError: if there is no pilot in ``out``, or the address cannot be listened on.
    """
    from ..experiment.live import serve as serve_page

    def tell(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False)

    serve_page(out, Messages(lang), tell, host=host, port=port, token=token, every=every)


def _watch_live(out: Path, console: Console, every: float, sleep: Callable[[float], None]) -> None:
    heard, beat = time.monotonic(), None
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            snapshot = take(out)
            if snapshot.beat != beat:
                heard, beat = time.monotonic(), snapshot.beat
            quiet = time.monotonic() - heard
            live.update(picture(snapshot, bars=True, quiet=quiet), refresh=True)
            if snapshot.state in ENDS:
                return
            sleep(every)


def _watch_lines(
    out: Path,
    console: Console,
    snapshot: Snapshot,
    every: float,
    sleep: Callable[[float], None],
) -> None:
    """A line for each run that ends, and for the whole now and then; all of it at the end."""
    told = {run.spec.run_id for run in snapshot.done}
    console.print(snapshot.headline, soft_wrap=True)
    last = time.monotonic()
    while snapshot.state not in ENDS:
        sleep(every)
        snapshot = take(out)
        for run in snapshot.done:
            if run.outcome and run.spec.run_id not in told:
                told.add(run.spec.run_id)
                line = ended_line(len(told), snapshot.planned_runs, run.spec, run.outcome)
                times = f"  |  {snapshot.times}" if snapshot.times else ""
                console.print(line + times, soft_wrap=True)
                last = time.monotonic()
        if time.monotonic() - last > LINE_EVERY:
            under_way = "; ".join(map(str, lines(snapshot)))
            console.print(f"{snapshot.headline}  |  {under_way}", soft_wrap=True, markup=False)
            last = time.monotonic()
    console.print(picture(snapshot, bars=False))


def picture(snapshot: Snapshot, *, bars: bool, quiet: float = 0.0) -> RenderableType:
    """All there is to see: state, runs under way, tuning, interim differences."""
    parts: list[RenderableType] = [view(snapshot, bars=bars)]
    if snapshot.state in ENDS:
        parts.append(Text(OUT_OF_BUDGET if snapshot.out_of_budget else ENDS[snapshot.state]))
    elif quiet > QUIET:
        parts.append(Text(f"The pilot has written nothing for {clock(quiet)}.", style="yellow"))
    parts += [Text(message, style="yellow") for message in snapshot.unreadable]
    if any(snapshot.trials.values()):
        parts += [Text(), _tuning(snapshot)]
    if table := _interim(snapshot):
        parts += [Text(), table]
    return Group(*parts)


def _tuning(snapshot: Snapshot) -> Table:
    rule = snapshot.plan.decision
    title = f"Tuning: {rule.metric} by learning rate, best in bold"
    table = Table(title=title, title_justify="left")
    table.add_column("arm")
    table.add_column("trials", justify="right")
    table.add_column(f"learning rate: {rule.metric}")
    for arm, trials in snapshot.trials.items():
        best = min(trials, key=lambda lr: loss_at(trials, lr), default=None)
        cells = Text()
        for lr in sorted(trials):
            loss = trials[lr]
            result = "diverged" if loss is None else f"{rule.sign * loss:.4f}"
            # no break between a rate and its loss
            cells.append(f"{lr:.2g}:\u00a0{result}", style="bold" if lr == best else "")
            cells.append("   ")
        table.add_row(Text(arm), str(len(trials)), cells)
    return table


def _standing_of(snapshot: Snapshot, analysis: Analysis) -> str:
    """How far the numbers so far can be trusted."""
    if snapshot.state == "ended" and not analysis.totals.missing:
        return ""
    if snapshot.plan.decision.looks == "once":
        return ": INTERIM, do not decide on it"
    so_far = Messages()(f"title.{analysis.verdict.decision}")
    return f": {so_far} so far; these intervals hold at every look"


def _interim(snapshot: Snapshot) -> Table | None:
    analysis = snapshot.interim
    if analysis is None or not any(arm.seeds for arm in analysis.arms):
        return None
    title = f"Paired with {analysis.baseline.name}{_standing_of(snapshot, analysis)}"
    table = Table(title=title, title_justify="left")
    table.add_column("arm")
    for column in ("seeds", f"mean {snapshot.plan.decision.metric}", "difference", "tokens saved"):
        table.add_column(column, justify="right")
    for arm in analysis.arms:
        difference = arm.loss_difference
        table.add_row(
            Text(arm.name),
            f"{len(arm.seeds)}/{len(snapshot.plan.comparison.seeds)}",
            "-" if arm.mean_loss is None else f"{arm.mean_loss:.4f}",
            "-" if difference is None else signed(difference.mean),
            saving_interval(arm, Messages()) if arm.log_ratio else "-",
        )
    return table

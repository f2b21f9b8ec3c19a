"""``mars train``: one run of a recipe or a plan, with the pilot's loop, records and checkpoints."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from ..records import Outcome, Plan, RunSpec, UserError, read_run
from ..records.plan_file import load_plan, plan_toml
from ..records.run import write_text

if TYPE_CHECKING:
    from ..pilot.single import Outlook

TOLD_FIRST, TOLD_SHARE = 10.0, 0.02  # seconds between lines without a terminal, at least
DIVERGED = 1  # exit status


def train(
    recipe: Path,
    /,
    *,
    arm: str | None = None,
    set: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    out: Path = Path("mars-train"),
    seed: int = 1,
    lr: float | None = None,
    checkpoint_minutes: float | None = None,
) -> None:
    """Train one arm of a recipe or a plan, once. The same command goes on where it was stopped.

    A finished run is not computed again. Several runs in one folder are compared by mars report.

    Parameters
    ----------
    recipe:
        TOML file: one of recipes/, or any plan.
    arm:
        Optimizer, of the file's (default: its comparison.candidate, mars-adamw).
    set:
        Change one key of the file, such as --set training.steps=400. May be repeated.
    out:
        Folder for runs/, where each run has a folder of its own.
    seed:
        Of initialisation and batches: runs with equal seeds are paired.
    lr:
        Peak learning rate, in place of the arm's.
    checkpoint_minutes:
        Between checkpoints, from which a run that was ended goes on; 0 for none (default: the
        file's running.checkpoint_minutes, 5).
    """
    if checkpoint_minutes is not None:
        set += (f"running.checkpoint_minutes={checkpoint_minutes}",)
    plan = load_plan(recipe, set)
    console, told = Console(highlight=False), Console(stderr=True, highlight=False)

    from ..pilot.single import check_choice

    check_choice(plan, arm=arm, lr=lr, seed=seed)
    try:
        outcome = _run(plan, out, console, told, arm=arm, lr=lr, seed=seed)
    except KeyboardInterrupt:
        # not by rich: interrupted while it printed, it would hold this back
        minutes = plan.running.checkpoint_minutes
        kept = "from its last checkpoint" if minutes else "from its first step: no checkpoints"
        print(f"Stopped. The same command goes on {kept}.", file=sys.stderr)
        raise SystemExit(130) from None
    if outcome.status == "diverged":
        raise SystemExit(DIVERGED)


def _run(plan: Plan, out: Path, console: Console, told: Console, **choice: Any) -> Outcome:
    from ..pilot.serve import outcome_of
    from ..pilot.single import look_ahead, single_spec

    job = _load(plan, out)
    spec = single_spec(plan, job.fingerprint, **choice)
    run = out / "runs" / spec.run_id
    outcome = outcome_of(out, spec)
    if outcome is not None:
        console.print("This run is finished; it is not computed again.")
    else:
        for line in before(plan, spec, look_ahead(spec, job.task, out), run):
            console.print(line, soft_wrap=True)
        outcome = _carry_out(job, plan, spec, out, told)
    for line in after(plan, spec, outcome, read_run(run).rows, out):
        console.print(line, soft_wrap=True)
    return outcome


def _load(plan: Plan, out: Path) -> Any:
    """The task, loaded; what is wrong with it in one line."""
    import torch

    from ..pilot.job import TaskJob

    try:
        return TaskJob(plan, out, torch.get_num_threads())
    except ValueError as error:
        raise UserError(str(error)) from None


def _carry_out(job: Any, plan: Plan, spec: RunSpec, out: Path, told: Console) -> Outcome:
    from ..pilot.run import prepare_folder
    from ..pilot.serve import describe, run_once
    from ..records.lock import is_locked

    run = out / "runs" / spec.run_id
    prepare_folder(out)
    if is_locked(run):
        raise UserError(f"{run}: another process is making this run; wait for it or end it")
    try:
        run.mkdir(exist_ok=True)
        write_text(run / "plan.toml", plan_toml(replace(plan)))
        with _Steps(told, spec, run) as steps:
            return run_once(job, spec, out, steps)
    except OSError as error:
        raise UserError(describe(error, out)) from None


def before(plan: Plan, spec: RunSpec, outlook: Outlook, run: Path) -> list[str]:
    """What will be done, before the first step; in rich's markup."""
    from ..pilot.progress import clock

    training = spec.training
    title = plan.recipe.title or f"{spec.task.kind} on {spec.task.corpus or spec.task.source}"
    kind = "images" if spec.task.kind == "images" else "tokens"
    lines = [
        f"[bold]{escape(title)}[/]: {spec.arm_name}, lr {spec.lr:g}, seed {spec.seed}",
        f"  model: {outlook.parameters:,} parameters",
        f"  data: {outlook.tokens:,} {kind} in {spec.steps:,} steps of "
        f"{outlook.tokens // spec.steps:,}",
        f"  schedule: {training.decay}, {round(training.warmup * spec.steps):,} steps of warm-up, "
        f"down to {training.min_lr:g}; clip {training.grad_clip:g}; precision "
        f"{training.precision}; reading: {training.reading}",
        f"  optimizer: {escape(outlook.optimizer)}",
        f"  published: {escape(told_of(plan, spec.arm_name))}",
    ]
    if changes := _changes(plan, spec):
        lines.append(f"  departs from the recipe: {escape('; '.join(changes))}")
    known = [f"about {clock(outlook.seconds)} by an earlier run"] if outlook.seconds else []
    if spec.task.kind == "gpt":
        known.append(f"{outlook.flops:.2g} FLOP (6 x parameters x tokens)")
    lines.append(f"  estimate: {', '.join(known) or 'from the first steps on'}")
    return [*lines, f"  records: {escape(str(run))}"]


def told_of(plan: Plan, arm: str) -> str:
    """What was published about an arm, in a line."""
    known = plan.published.get(arm)
    if known is None:
        return "nothing in this file"
    numbers = []
    if known.loss is not None:
        numbers.append(f"loss {known.loss:g}")
    if known.accuracy is not None:
        numbers.append(f"accuracy {known.accuracy:g} %")
    text = f"{', '.join(numbers)} ({known.source})" if numbers else known.source
    if known.note:
        text += f"; {known.note}"
    return text + ("; the arm's settings are ours to tune" if known.settings == "ours" else "")


def _changes(plan: Plan, spec: RunSpec) -> list[str]:
    """The plan's, of this arm's and of the run itself."""
    others = tuple(f"arm.{name}." for name in plan.arms if name != spec.arm_name)
    changed = [text for text in plan.recipe.changed if not text.startswith(others)]
    if plan.recipe.title and spec.lr != spec.arm.lr:
        changed.append(f"lr = {spec.lr:g} (recipe: {spec.arm.lr:g})")
    return changed


def after(
    plan: Plan, spec: RunSpec, outcome: Outcome, rows: list[dict[str, Any]], out: Path
) -> list[str]:
    """The result next to the published one; in rich's markup."""
    from ..pilot.progress import clock

    if outcome.final_loss is None:
        lines = [f"[red]diverged[/]: {escape(outcome.reason)}"]
    else:
        lines = [f"[bold]loss {outcome.final_loss:.4f}[/]{_beside(plan, spec, outcome, rows)}"]
    lines.append(
        f"  {outcome.tokens:,} tokens in {clock(outcome.seconds)} of training; optimizer state "
        f"{outcome.state_bytes / max(1, outcome.parameters):.1f} bytes per parameter"
    )
    lines.append(f"  {escape(str(out / 'runs' / spec.run_id))}; mars report {escape(str(out))}")
    return lines


def _beside(plan: Plan, spec: RunSpec, outcome: Outcome, rows: list[dict[str, Any]]) -> str:
    """Accuracy if there is one, and the published numbers with their difference."""
    last: dict[str, Any] = next((r for r in reversed(rows) if r.get("valid_loss") is not None), {})
    accuracy, known = last.get("accuracy"), plan.published.get(spec.arm_name)
    text = f", accuracy {100 * accuracy:.2f} %" if accuracy is not None else ""
    if known is None or outcome.final_loss is None:
        return text
    changed, beside = bool(_changes(plan, spec)), []
    if known.loss is not None:
        more = "" if changed else f" (ours {outcome.final_loss - known.loss:+.4f})"
        beside.append(f"loss {known.loss:g}{more}")
    if known.accuracy is not None:
        more = ""
        if accuracy is not None and not changed:
            more = f" (ours {100 * accuracy - known.accuracy:+.2f})"
        beside.append(f"accuracy {known.accuracy:g} %{more}")
    text += f"; published: {', '.join(beside) or known.source}"
    if beside and changed:
        text += ", for the recipe unchanged: this run departs from it"
    return text


class _Steps:
    """Shows the steps: a bar on a terminal, a line now and then elsewhere; on stderr."""

    def __init__(self, console: Console, spec: RunSpec, run: Path) -> None:
        self.console, self.spec, self.run = console, spec, run
        self.first: int | None = None  # the step that this session began after
        self.started = self.told = time.monotonic()
        self.bar = Progress(
            TextColumn("  step {task.completed:,} of {task.total:,}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %{task.description}"),
            console=console,
            transient=True,
        )
        self.id = self.bar.add_task("", total=spec.steps)

    def __enter__(self) -> _Steps:
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.console.is_terminal:
            self.bar.stop()

    def __call__(self, step: int) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first, self.started, self.told = step, now, now
            if step > 1:
                self.console.print(f"  goes on after step {step - 1:,}")
        wait = (
            0.5 if self.console.is_terminal else max(TOLD_FIRST, TOLD_SHARE * (now - self.started))
        )
        if now - self.told < wait:
            return
        self.told = now
        state = self._state(step, now)
        if self.console.is_terminal:
            self.bar.update(self.id, completed=step, description=state)
        else:
            self.console.print(f"  step {step:,} of {self.spec.steps:,}{state}", soft_wrap=True)

    def _state(self, step: int, now: float) -> str:
        """The last loss on disk, and the time left at the speed so far."""
        from ..pilot.progress import clock

        text = ""
        try:
            row = next(r for r in reversed(read_run(self.run).rows) if r.get("loss") is not None)
            text += f", loss {row['loss']:.4f}"
        except (UserError, StopIteration):
            pass  # no row yet
        if self.first is not None and step > self.first:
            left = (now - self.started) / (step - self.first) * (self.spec.steps - step)
            text += f", {clock(left)} left"
        return text

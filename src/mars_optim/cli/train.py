"""``mars train``: one run of a recipe or a plan, with the pilot's loop, records and checkpoints."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from ..errors import UserError
from ..experiment.plan import ExecutionOptions, Plan, RunSpec
from ..experiment.plan.arms import HIGHEST_LR
from ..experiment.plan.plan_file import load_plan, plan_toml
from ..experiment.records import Outcome, read_run
from ..experiment.records.run import CHECKPOINTS
from ..files import write_text
from .completions import arms
from .steps import Steps
from .train_messages import after, before

DIVERGED = 1  # exit status


def train(
    recipe: Path,
    /,
    *,
    arm: Annotated[str | None, Parameter(completer=arms)] = None,
    set: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    out: Path = Path("mars-train"),
    seed: int = 1,
    lr: float | None = None,
    resume: Literal["auto", "never"] = "auto",
    checkpoint_minutes: float | None = None,
    keep: int = 0,
    keep_best: Annotated[bool, Parameter(negative="")] = False,
    sharding: Literal["ddp", "fsdp2"] = "ddp",
    compile: Annotated[bool, Parameter(negative="")] = False,
    activation_checkpointing: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Train a published recipe once, with one optimizer.

    The same command resumes a stopped run; a finished run is not computed again. To compare
    several runs in one folder, use mars report. On several devices, run:
    torchrun --nproc-per-node N -m mars_optim train RECIPE.toml ...

    Parameters
    ----------
    recipe:
        TOML file: one of recipes/, or any plan.
    arm:
        Arm of the file to train (default: its comparison.candidate, mars-adamw).
    set:
        Change one key of the file, such as --set training.steps=400. May be repeated.
    out:
        Folder for runs/, where each run has a folder of its own.
    seed:
        Seed of initialisation and batches; runs with equal seeds are paired.
    lr:
        Peak learning rate, in place of the arm's.
    resume:
        "auto": resume from the run's last checkpoint, if it has one. "never": begin again.
    checkpoint_minutes:
        Minutes between checkpoints; 0 for none (default: the file's running.checkpoint_minutes, 5).
    keep:
        Number of newest checkpoints to keep when the run has finished; weights.pt always stays.
    keep_best:
        Also keep the checkpoint of the lowest validation loss.
    sharding:
        With several processes: each holds the whole model ("ddp"), or its share of it ("fsdp2").
    compile:
        Compile the model by torch.compile.
    activation_checkpointing:
        Keep only the inputs of blocks and compute the rest again: less memory, more time.
    """
    if checkpoint_minutes is not None:
        set += (f"running.checkpoint_minutes={checkpoint_minutes}",)
    execution = ExecutionOptions(
        sharding=sharding,
        compile=compile,
        activation_checkpointing=activation_checkpointing,
        keep=keep,
        keep_best=keep_best,
        keep_weights=True,
        unusable="refuse",
    )
    plan = _checked(recipe, set, arm=arm, lr=lr, seed=seed)
    quiet = not _is_first()  # of several processes only the first one's are heard
    console = Console(highlight=False, quiet=quiet)
    told = Console(stderr=True, highlight=False, quiet=quiet)
    runs: list[Path] = []
    try:
        outcome = _run(
            plan, execution, out, (console, told), runs, resume, arm=arm, lr=lr, seed=seed
        )
    except KeyboardInterrupt:
        # not by rich: interrupted while it printed, it would hold this back
        print(f"Stopped. The same command {_what_next(runs)}.", file=sys.stderr)
        raise SystemExit(130) from None
    if outcome.status == "diverged":
        raise SystemExit(DIVERGED)


def _checked(recipe: Path, set: tuple[str, ...], **choice: Any) -> Plan:
    """The plan, and that it has such a run; of several processes the first one says what is wrong.

    All see the same, so one line is enough.
    """
    try:
        plan = load_plan(recipe, set)
        from ..experiment.pilot.run_estimate import check_choice

        if choice["lr"] is not None and not choice["lr"] <= HIGHEST_LR:
            raise UserError(f"--lr {choice['lr']:g} must be at most {HIGHEST_LR:g}")
        check_choice(plan, **choice)
    except UserError:
        if _is_first():
            raise
        raise SystemExit(2) from None
    return plan


def _what_next(runs: list[Path]) -> str:
    """The newest checkpoint of a run that was stopped, or that there is none."""
    whole = [p for run in runs for p in (run / CHECKPOINTS).glob("step-*") if p.name[5:].isdigit()]
    if not whole:
        return "starts again, since there is no checkpoint yet"
    return f"continues after step {int(max(whole).name[5:]):,}"


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _run(
    plan: Plan,
    execution: ExecutionOptions,
    out: Path,
    consoles: tuple[Console, Console],
    runs: list[Path],
    resume: str,
    **choice: Any,
) -> Outcome:
    from ..experiment.executors.worker import outcome_of
    from ..experiment.pilot.arm_lines import check_lines, new_run_line, resolve_arms
    from ..experiment.pilot.run_estimate import look_ahead, single_spec
    from ..experiment.records.checks import read_checks
    from ..experiment.training import join_ranks

    console, told = consoles
    ranks = join_ranks()
    plan, only = resolve_arms(plan), choice["arm"] or plan.comparison.candidate
    runnable = _load(plan, out, execution, only)
    spec = single_spec(plan, runnable.fingerprint, **choice)
    run = out / "runs" / spec.run_id
    runs.append(run)
    # the first process alone reads and writes the folder
    outcome: Outcome | None = ranks.firsts(outcome_of(out, spec) if ranks.first else None)
    if outcome is not None:
        console.print("This run is finished and is not repeated.")
    else:
        if ranks.first:
            changed = new_run_line(spec, out)
            for line in (*([changed] if changed else []), *check_lines(read_checks(out, (only,)))):
                console.print(line, soft_wrap=True)
            for line in before(plan, spec, look_ahead(spec, runnable.task, out), run):
                console.print(line, soft_wrap=True)
        with _folder(plan, spec, out, resume) if ranks.first else nullcontext():
            ranks.firsts(None)  # the folder is ready
            with Steps(told, spec, run, alone=ranks.world == 1) as steps:
                outcome = runnable.run(spec, steps)
    if ranks.first:
        for line in after(plan, spec, outcome, read_run(run).rows, out):
            console.print(line, soft_wrap=True)
    return outcome


def _load(plan: Plan, out: Path, execution: ExecutionOptions, only: str) -> Any:
    """The task, loaded; what is wrong with it in one line."""
    import torch

    from ..experiment.executors.runnable import RunnableTask

    try:
        return RunnableTask(plan, out, torch.get_num_threads(), execution, only)
    except ValueError as error:
        raise UserError(str(error)) from None


@contextmanager
def _folder(plan: Plan, spec: RunSpec, out: Path, resume: str) -> Iterator[None]:
    """Hold the run's folder, with the plan in it."""
    from ..experiment.executors.worker import describe
    from ..experiment.pilot.run import prepare_folder
    from ..experiment.records.lock import is_locked, run_lock

    run = out / "runs" / spec.run_id
    prepare_folder(out)
    if is_locked(run):
        raise UserError(f"{run}: another process is making this run; wait until it ends, or end it")
    try:
        with run_lock(run):
            if resume == "never":
                shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)
            write_text(run / "plan.toml", plan_toml(plan))
            yield
    except OSError as error:
        raise UserError(describe(error, out)) from None

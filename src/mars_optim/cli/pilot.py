"""``mars pilot`` and ``mars plan``."""

from __future__ import annotations

import os
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from ..errors import UserError, check_folder, need
from ..experiment.plan import Plan
from ..experiment.plan.plan_file import built_in_plan, load_plan, plan_of
from ..experiment.plan.tuning import few_trials
from ..experiment.records import Failure, read_runs
from ..experiment.records.run import BUDGET
from .completions import jobs
from .progress import Progress
from .report import Lang, write

OUT = Path("mars-pilot")
"""Folder of a pilot, unless ``--out`` names another."""

MISSING = 3  # exit status of a pilot that has done what it could, with runs missing


def pilot(
    what: Annotated[str | None, Parameter(completer=jobs)] = None,
    /,
    *,
    out: Path = OUT,
    plan: Path | None = None,
    init: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    set: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    ablations: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    workers: int | Literal["auto"] = 1,
    executor: Literal["local", "slurm"] = "local",
    executor_option: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    lang: Lang = "en",
) -> None:
    """Train your model with several optimizers, compare them fairly, and write a report.

    Such a comparison is a pilot; each optimizer in it is an arm. It tunes the learning rate of
    every arm in the same way, then trains all arms from the same starting points (seeds). Without
    arguments: a small GPT on the source code of Python's standard library, AdamW against
    MARS-AdamW, with NAdamW as a control. Stop it at any moment; the same command resumes it.

    Parameters
    ----------
    what:
        After --init: plan, task, command, finetune, sft or bandit (see mars init).
    out:
        Folder for the plan, the runs, report.html, report.md and verdict.json.
    plan:
        Plan in TOML. Without it, the one in --out, or else the built-in plan.
    init:
        Write the plan with comments to --plan (or to --out/plan.toml) and stop.
    set:
        Change one key of the plan, such as --set training.steps=400. May be repeated.
    ablations:
        Also train variants of MARS with one part switched off, to show where its effect comes
        from; short for --set comparison.ablations=true.
    workers:
        Runs at a time on this machine, which share its cores and accelerators. "auto": one per
        accelerator or, without accelerators, one per core and at most four. With --executor
        slurm: jobs in the queue at a time.
    executor:
        "local" for processes on this machine; "slurm" for jobs in a SLURM queue, with --out on a
        file system that all its machines share.
    executor_option:
        One option of a job, such as --executor-option partition=gpu. May be repeated.
    lang:
        Language of the report: en, or ja for Japanese (report.ja.html, report.ja.md).
    """
    set += ("comparison.ablations=true",) * ablations
    if what and not init:
        raise UserError(
            f"mars pilot takes no argument {what!r}: leave it out, or put --init before it"
        )
    if init:
        from .init import init_pilot

        print(init_pilot(what or "plan", plan, out, set))
        return
    chosen = _plan(out, plan, set)
    _check_workers(workers)
    _check_tuning(chosen)

    from ..experiment.executors.local import LocalExecutor
    from ..experiment.executors.resources import automatic_workers
    from ..experiment.executors.slurm import SlurmExecutor
    from ..experiment.executors.slurm_submission import parse_options
    from ..experiment.pilot.run import run_pilot

    console = Console(highlight=False)
    if executor == "slurm":
        if workers == "auto":
            raise UserError(
                "--workers auto counts the devices of this machine: with --executor slurm, "
                "give a number"
            )
        make_executor: Any = partial(
            SlurmExecutor, count=workers, options=parse_options(executor_option)
        )
    elif executor_option:
        raise UserError("--executor-option works only with --executor slurm: add --executor slurm")
    else:
        count = automatic_workers() if workers == "auto" else workers
        make_executor = partial(LocalExecutor, count=count)
    try:
        missing = run_pilot(chosen, out, console, make_executor)
    except KeyboardInterrupt:
        console.print("Stopped. Finished runs are kept: run the same command again to continue.")
        raise SystemExit(130) from None
    followed = load_plan(plan_of(out))  # which tells each optimizer's source, too
    ended = [r for r in read_runs(out / "runs") if r.outcome and followed.covers(r.spec)]
    if missing and not ended:
        print(_nothing(out, missing), file=sys.stderr)
        raise SystemExit(MISSING)
    write(out, console, lang)
    if missing:
        raise SystemExit(MISSING)


def _nothing(out: Path, missing: dict[str, Failure]) -> str:
    """One line for a pilot all of whose runs were given up."""
    run, failure = next(iter(missing.items()))
    if failure.reason == BUDGET:
        return f"mars: error: {out} holds no finished run: {BUDGET}; raise cost.budget"
    text = f"{out} holds no finished run: all {len(missing)} that were tried failed; {run}"
    return f"mars: error: {' '.join(f'{text}: {failure}'.split())}"


def plan_command(
    *,
    out: Path = OUT,
    plan: Path | None = None,
    set: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    workers: int | Literal["auto"] = 1,
    effect: float | None = None,
    budget: float | None = None,
    price: float | None = None,
    hours: float | None = None,
    prior_saving: float | None = None,
    prior_sd: float | None = None,
    designs: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> None:
    """Estimate time and cost of a comparison (a pilot) from a short measurement.

    Train a little on this machine: half a minute for the built-in model on an idle machine,
    longer for yours. Print the number of runs, hours and money, the number of seeds that an
    effect needs, the cost of MARS in time and memory here, and published results at such a size.
    Write no files.

    Parameters
    ----------
    out:
        Folder of the pilot; if it has finished pairs, they give the noise.
    plan:
        Plan in TOML. Without it, the one in --out, or else the built-in plan.
    set:
        Change one key of the plan, such as --set training.steps=400. May be repeated.
    workers:
        Runs at a time, as for the pilot.
    effect:
        Saving that the pilot should detect, as a share of tokens (default: decision.min_saving).
    budget:
        Money for the pilot: print the pairs, arms, ladder, trials and steps that it is best spent
        on, or that no pilot is worth its price.
    price:
        Price of an hour of one device, for --budget (default: cost.price_per_hour).
    hours:
        Budget in hours of the pilot's machine, in place of --budget.
    prior_saving:
        Prior belief: share of tokens that the candidate saves (default: 0.058, from public runs).
    prior_sd:
        Standard deviation of that belief, in log tokens (default: 0.08).
    designs:
        With a budget: print the best design beside those that differ from it in one choice.
    json:
        Print all numbers as JSON.
    """
    chosen = _plan(out, plan, set)
    check_folder(out, "the pilot")
    _check_workers(workers)
    _check_tuning(chosen)
    wanted = effect if effect is not None else max(chosen.decision.min_saving, 0.01)
    limit = budget if hours is None else hours
    beliefs = (price, prior_saving, prior_sd)
    if limit is None and any(value is not None for value in beliefs):
        raise UserError(
            "--price, --prior-saving and --prior-sd work only with --budget or --hours: add "
            "one of them"
        )
    if limit is None and designs:
        raise UserError("--designs works only with --budget or --hours: add one of them")

    from ..experiment.executors.resources import automatic_workers
    from ..experiment.pilot.forecast import forecast
    from ..experiment.pilot.worth import budget_of, checked_prior
    from .budget import weighed
    from .plan import as_json, show

    prior = checked_prior(prior_saving, prior_sd)
    priced = chosen if limit is None else budget_of(chosen, budget, price, hours)

    console = Console(highlight=False)
    count = automatic_workers() if workers == "auto" else workers
    threads = max(1, (os.cpu_count() or 1) // count)
    with Progress() as shown:
        shown.say("Measuring on this machine; nothing is written. Ctrl-C stops at any time.")
        found = forecast(
            chosen,
            out,
            workers=count,
            threads=threads,
            effect=wanted,
            say=shown.say,
            progress=lambda done, total: shown(f"step {done:,} of {total:,}", done, total, "steps"),
        )
    choice = None if limit is None else weighed(priced, found, limit, prior, count)
    if json:
        print(as_json(chosen, found, choice))
    else:
        given = _options(out, plan, set, workers)
        show(chosen, found, console, count, choice, given=given, compared=designs)


def _options(
    out: Path, plan: Path | None, changes: tuple[str, ...], workers: int | Literal["auto"]
) -> str:
    """These options of ``mars pilot`` as a shell takes them, without those at their defaults."""
    words = ["--plan", str(plan)] if plan else []
    words += ["--out", str(out)] if out != OUT else []
    words += ["--workers", str(workers)] if workers != 1 else []
    words += [word for change in changes for word in ("--set", change)]
    return shlex.join(words)


def _plan(out: Path, given: Path | None, changes: tuple[str, ...]) -> Plan:
    """The plan that was given; else the one in ``out``; else the built-in one."""
    source = given or out / "plan.toml"
    return load_plan(source, changes) if given or source.exists() else built_in_plan(changes)


def _check_workers(workers: int | str) -> None:
    if isinstance(workers, int) and not 1 <= workers <= 1024:
        raise UserError(f"--workers {workers} must be from 1 to 1024, or auto")


def _check_tuning(plan: Plan) -> None:
    """See that what samples the trials is installed, and warn where they are few.

    Raises:
        UserError: if it is not.
    """
    if plan.tuning.sampler == "tpe":
        need("optuna", "tune")
    if warning := few_trials(plan.tuning):
        print(f"mars: warning: {warning}", file=sys.stderr)

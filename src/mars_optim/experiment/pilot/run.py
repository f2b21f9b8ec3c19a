"""A pilot from its plan to its last run; stopped at any moment, it goes on where it was."""

from __future__ import annotations

import datetime
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console

from ...errors import UserError
from ...files import no_link, write_text
from ..analysis.cost import pilot_price
from ..executors.base import Executor
from ..executors.worker import describe
from ..plan import Plan, RunSpec
from ..plan.any_arm import is_any
from ..plan.plan_file import TOLD, differences, load_plan, plan_of, plan_toml
from ..plan.sizes import OWN_SIZE
from ..records import Failure, Run, read_run, read_runs
from ..records.checks import read_checks
from ..records.lock import is_locked, pilot_lock
from ..records.run import damaged_runs, forget_branch_point, record_failure
from .agenda import agenda
from .arm_lines import SOURCE, check_lines, resolve_arms, source_changes
from .lost_states import make_way, trunks_without_states
from .price import price, price_line
from .probing import measured
from .progress import STATUS, Reporter
from .retries import Retries, Timing
from .spending import LOST, Spending

LEAST_DISK = 64 * 2**20
LATER = (
    "comparison.others",
    "comparison.rungs",
    "cost.",
    "target.",
    "running.",
    "sensitivity.",
    *TOLD,
)
"""Keys that may change after the first run."""


def run_pilot(
    plan: Plan, out: Path, console: Console, make_executor: Callable[[Plan, Path], Executor]
) -> dict[str, Failure]:
    """Carry out ``plan`` in the folder ``out``, from wherever it stands.

    Args:
        plan: of the pilot; must agree with the one in ``out`` if there is one.
        out: gets ``plan.toml``, ``probe.json`` and ``runs/``.
        console: for progress.
        make_executor: makes those who carry out the runs.

    Returns:
        The last failure of each run that was given up, by run id; empty if all is done.

    Raises:
        UserError: if ``out`` cannot be used or written to, or holds another pilot, or an arm's
            optimizer cannot be used.
    """
    given, plan = plan, resolve_arms(plan)
    prepare_folder(out)
    try:
        with pilot_lock(out):
            changes = plan_changes(plan, out)
            with make_executor(plan, out) as executor, Reporter(console, out / STATUS) as reporter:
                for line in source_changes(given, plan, out):
                    reporter.say(line)
                named = any(is_any(arm.optimizer) for arm in plan.arm.values())
                reporter.say(f"Loading model and data{' and checking optimizers' * named} ...")
                data = _wait_until_ready(executor, reporter)
                for line in check_lines(read_checks(out, plan.arm)):
                    reporter.say(line)
                check_data(out, data)
                adopt_plan(plan, out, changes)  # only now is it known to be one that can run
                set_damaged_aside(out, reporter)
                spending = Spending(plan, out)
                if spending.unknown:
                    reporter.say(spending.unknown)
                timings = measured(plan, out, executor, reporter)
                spending.beat()
                reporter.expect(timings, executor.count)
                reporter.say(f"In all: {price_of(plan, timings, executor.count)}")
                tries = Retries(plan.running, timings, executor.sharing)
                try:
                    return _run_all(plan, out, data, executor, reporter, tries, spending)
                finally:
                    spending.close()
    except OSError as error:
        raise UserError(describe(error, out)) from None


def prepare_folder(out: Path) -> None:
    """Make ``out`` and see that it can be written to.

    Raises:
        UserError: if not.
    """
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
        open(out / ".lock", "a", opener=no_link).close()
    except OSError as error:
        raise UserError(f"--out {out} cannot be used: {error.strerror}") from None
    if shutil.disk_usage(out).free < LEAST_DISK:
        raise UserError(f"--out {out}: less than {LEAST_DISK >> 20} MiB of disk are free")


def plan_changes(plan: Plan, out: Path) -> list[str]:
    """Differences from the plan by which the runs in ``out`` were made, if there is one.

    More seeds, other costs and other care of the runs may be asked for later: they change no
    finished run. Where only the first seeds have a ladder, these keep theirs, and more may have
    one. Another source of an arm's optimizer makes its runs anew. Before the first run everything
    may change.

    Raises:
        UserError: if any other key differs.
    """
    path = plan_of(out)
    if not path.exists():
        return []
    old = load_plan(path)
    changes = differences(old, plan)
    few = plan.comparison.ladder_seeds if plan.ladder else 0
    rungs_kept = not few or set(old.comparison.with_rungs) <= set(plan.comparison.with_rungs)
    if rungs_kept and set(old.comparison.seeds) == set(plan.comparison.seeds):  # in whatever order
        changes = [c for c in changes if not c.startswith("comparison.seeds")]
    seeds_kept = rungs_kept and set(old.comparison.seeds) <= set(plan.comparison.seeds)
    more = ["comparison.seeds"] if seeds_kept else []
    if few and old.comparison.ladder_seeds and rungs_kept:
        more.append("comparison.ladder_seeds")
    if set(old.tuning.more_seeds) <= set(plan.tuning.more_seeds):
        more.append("tuning.more_seeds")  # the rates of a comparison that has begun stay
    allowed = (*LATER, *more)
    forbidden = [c for c in changes if not (c.startswith(allowed) or SOURCE.match(c))]
    if forbidden and has_begun(out):
        raise UserError(
            f"{out / 'plan.toml'} holds another plan ({'; '.join(forbidden)} now): use another "
            f"--out, or leave the option out. {_changeable(plan)}"
        )
    return changes


def _changeable(plan: Plan) -> str:
    """The sentence on what may change after the first run."""
    at_the_end = " at the end" * bool(plan.ladder and plan.comparison.ladder_seeds)
    return (
        "Only [cost], [target], [sensitivity], [running], comparison.others and comparison.rungs "
        f"can be changed, and seeds added{at_the_end} (comparison.seeds, tuning.more_seeds)"
    )


def has_begun(out: Path) -> bool:
    """Whether a real run has ended in ``out``, or is under way; one that only failed is neither."""
    runs = out / "runs"
    return bool(damaged_runs(runs)) or any(
        run.outcome or is_locked(run.path) or (run.rows and not run.failures)
        for run in read_runs(runs)
    )


def adopt_plan(plan: Plan, out: Path, changes: list[str]) -> None:
    """Write the plan into ``out``, and what changed into ``amendments.jsonl``.

    A rule is worth less once the results are known, so the report shows amendments. The user may
    edit ``plan.toml``; the plan that the runs follow stands beside them.
    """
    amended = [c for c in changes if not c.startswith(("running.", *TOLD))]
    begun = has_begun(out)
    if not begun and any(not c.startswith(LATER) for c in changes):
        (out / "probe.json").unlink(missing_ok=True)  # it timed another plan
    if amended and begun:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        path = out / "amendments.jsonl"
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        write_text(path, old + json.dumps({"date": now, "changes": amended}) + "\n")
    text = plan_toml(plan)
    (out / "runs").mkdir(parents=True, exist_ok=True)
    if changes or not (out / "plan.toml").exists():
        write_text(out / "plan.toml", text)
    write_text(out / "runs" / "plan.toml", text)


def check_data(out: Path, data: str) -> None:
    """See that the finished runs in ``out`` were made on the same data.

    Raises:
        UserError: if not.
    """
    for run in read_runs(out / "runs"):
        if run.outcome and run.spec.data != data:
            raise UserError(
                f"{run.path} was made on other data, or by other code of the task or command "
                f"({run.spec.data[:12]}, now {data[:12]}; Python "
                f"{run.environment.get('python')} then): losses cannot be compared; use another "
                "--out, or undo the change"
            )


def set_damaged_aside(out: Path, reporter: Reporter) -> None:
    """Make way for runs whose manifest can no longer be read: they are made again."""
    for path in damaged_runs(out / "runs"):
        os.replace(path / "manifest.json", path / "manifest.json.damaged")
        reporter.say(f"{path}: its manifest is damaged, so the run is repeated")


def _wait_until_ready(executor: Executor, reporter: Reporter) -> str:
    data: list[str] = []
    while executor.busy:
        for event in executor.events(timeout=1.0):
            if event.kind == "ready":
                data.append(event.value)
            elif event.kind == "waits":
                reporter.wait(event.run_id, event.value)
    return data[0]


def finished_runs(plan: Plan, out: Path) -> dict[str, Run]:
    """By run id, of this plan alone: an arm's code may have changed since others were made."""
    runs = read_runs(out / "runs")
    return {run.spec.run_id: run for run in runs if run.outcome and plan.covers(run.spec)}


def _run_all(
    plan: Plan,
    out: Path,
    data: str,
    executor: Executor,
    reporter: Reporter,
    tries: Retries,
    spending: Spending,
) -> dict[str, Failure]:
    done = finished_runs(plan, out)
    for run in done.values():
        forget_branch_point(out / "runs", run.spec)
    before, specs = dict(done), dict[str, RunSpec]()
    announced = False
    while True:
        now = agenda(plan, data, done.values(), executor.running, tries.given_up)
        if lost := trunks_without_states(out / "runs", now.ready, before):
            for trunk in sorted(lost):
                make_way(out / "runs", trunk, reporter.say)
                del done[trunk], before[trunk]
            continue
        reporter.plan(
            steps=now.planned_steps,
            runs=now.planned_runs,
            done_steps=sum(run.spec.work for run in done.values()),
            done_runs=len(done),
        )
        if now.finished and not announced:
            reporter.say(f"All {len(done)} runs are done; the report is written again.")
        elif not announced:
            _announce(plan, reporter, now.planned_runs, len(done))
        announced = True
        if now.finished:
            return tries.given_up
        spending.beat(paid=reporter.works)
        for spec in now.ready[: executor.free]:
            if not spending.pays_for(spec, reporter.under_way, tries.timings, executor.sharing):
                break
            specs[spec.run_id] = spec
            executor.give(spec, tries.limit(spec))
            reporter.begin(spec)
        if spending.over or not executor.busy:
            reporter.say(_spent(plan, spending))
            return tries.given_up | {spec.run_id: LOST for spec in (*now.ready, *executor.running)}
        for event in executor.events(timeout=1.0):
            if event.kind == "step":
                reporter.advance(event.run_id, event.value)
            elif event.kind == "waits":
                reporter.wait(event.run_id, event.value)
            elif event.kind == "done":
                reporter.end(event.run_id, event.value)
                done[event.run_id] = read_run(out / "runs" / event.run_id)
                for run in done.values():  # of a trunk that was made again, what is not needed
                    if event.run_id in (run.spec.run_id, run.spec.trunk):
                        forget_branch_point(out / "runs", run.spec)
            elif event.kind == "failed":
                record_failure(out / "runs", specs[event.run_id], event.value)
                again = tries.again(event.run_id, event.value)
                what_next = "it is tried again" if again else "given up; other runs go on"
                reporter.lose(event.run_id, event.value, what_next)


def _spent(plan: Plan, spending: Spending) -> str:
    """Why no further run starts, and the way on."""
    cost = plan.cost
    spent = spending.seconds / 3600 * pilot_price(cost)
    return (
        f"The budget ends the pilot: {spent:,.4g} of {cost.budget:,.4g} {cost.currency} "
        "are spent, and the next run would cost more than is left. Raise cost.budget and "
        "run the same command again to continue."
    )


def price_of(plan: Plan, timings: Mapping[str, Timing], workers: int) -> str:
    """The whole pilot's price in a line; no hours where sizes were not timed (mars plan is)."""
    own = {(OWN_SIZE, arm): timing for arm, timing in timings.items()}
    found = price(plan, None if plan.scale else own, workers=workers)
    return price_line(found, plan.cost.currency)


def _announce(plan: Plan, reporter: Reporter, runs: int, done: int) -> None:
    left = reporter.seconds_left() or 0.0
    ladder = ""
    if plan.ladder:
        few = plan.comparison.ladder_seeds
        seeds = f" with the first {f'{few} seeds' if few > 1 else 'seed'}" if few else ""
        ladder = (
            f" {plan.comparison.baseline} is also trained for other numbers of "
            f"steps{seeds} (the ladder)."
        )
    if plan.both_ladders:
        ladder = (
            f" {plan.comparison.baseline} and {plan.comparison.candidate} are also trained at "
            "other lengths (the ladder), each seed's as decays from one run."
        )
    first = plan.comparison.at_first(plan.arms)
    after = [arm for arm in plan.arms if arm not in first]
    then = f" {', '.join(after)} is run only after a go." if after else ""
    kept = f", {done} of them done before" if done else ""
    up_to = "up to " if plan.decision.looks == "every-pair" else ""
    reporter.say(
        f"{runs} runs{kept}. First {', '.join(first)} are tuned in the same way "
        f"({', '.join(plan.tuning.over)}), then each is trained from "
        f"{up_to}{len(plan.comparison.seeds)} seeds, the same for all.{ladder}{then} "
        f"About {max(1, round(left / 60))} min. You can stop at any time: run the same "
        "command again to continue."
    )

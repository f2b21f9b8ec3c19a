"""A pilot from its plan to its last run; stopped at any moment, it goes on where it was."""

from __future__ import annotations

import datetime
import json
import os
import shutil
from pathlib import Path

from rich.console import Console

from ..records import Plan, UserError, read_run, read_runs
from ..records.lock import pilot_lock
from ..records.plan import differences, load_plan, plan_of, plan_toml
from ..records.run import read_json, write_json, write_text
from .agenda import agenda
from .progress import Reporter
from .workers import Workers

LEAST_DISK = 64 * 2**20


def run_pilot(plan: Plan, out: Path, console: Console, *, workers: int) -> None:
    """Carry out ``plan`` in the folder ``out``, from wherever it stands.

    Args:
        plan: of the pilot; must agree with the one in ``out`` if there is one.
        out: gets ``plan.toml``, ``probe.json`` and ``runs/``.
        console: for progress.
        workers: runs at a time, each in a process of its own.

    Raises:
        UserError: if ``out`` cannot be used, or holds another pilot.
    """
    prepare_folder(out)
    with pilot_lock(out):
        changes = plan_changes(plan, out)
        with Workers(plan, out, workers) as pool, Reporter(console) as reporter:
            data = _wait_until_ready(pool, reporter)
            check_data(out, data)
            adopt_plan(plan, out, changes)  # only now is it known to be one that can run
            _probe(plan, out, pool, reporter, workers)
            _run_all(plan, out, data, pool, reporter)


def prepare_folder(out: Path) -> None:
    """Make ``out`` and see that it can be written to.

    Raises:
        UserError: if not.
    """
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
        (out / ".lock").open("a").close()
    except OSError as error:
        raise UserError(f"--out {out} cannot be used: {error.strerror}") from None
    if shutil.disk_usage(out).free < LEAST_DISK:
        raise UserError(f"--out {out}: less than {LEAST_DISK >> 20} MiB of disk are free")


def plan_changes(plan: Plan, out: Path) -> list[str]:
    """What differs from the plan that the runs in ``out`` were made by, if there is one.

    More seeds and other costs may be asked for later: they change no finished run.

    Raises:
        UserError: if any other key differs.
    """
    path = plan_of(out)
    if not path.exists():
        return []
    old = load_plan(path)
    changes = differences(old, plan)
    if set(old.comparison.seeds) == set(plan.comparison.seeds):  # in whatever order
        changes = [c for c in changes if not c.startswith("comparison.seeds")]
    seeds_kept = set(old.comparison.seeds) <= set(plan.comparison.seeds)
    allowed = ("cost.", "comparison.seeds") if seeds_kept else ("cost.",)
    forbidden = [c for c in changes if not c.startswith(allowed)]
    if forbidden:
        raise UserError(
            f"{out / 'plan.toml'} holds another plan ({'; '.join(forbidden)} now): use another "
            "--out, or leave the option out. Only seeds can be added and costs changed"
        )
    return changes


def adopt_plan(plan: Plan, out: Path, changes: list[str]) -> None:
    """Write the plan into ``out``, and what changed into ``amendments.jsonl``.

    A rule is worth less once the results are known, so the report shows amendments. The user may
    edit ``plan.toml``; the plan that the runs follow stands beside them.
    """
    if changes:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with (out / "amendments.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"date": now, "changes": changes}) + "\n")
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
                f"{run.path} was made on other data ({run.spec.data[:12]}, now {data[:12]}; "
                f"Python {run.environment.get('python')} then): losses cannot be compared; use "
                "another --out"
            )


def default_workers() -> int:
    """One run per core, four at the most; one on a machine with an accelerator."""
    accelerator = Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists()
    return 1 if accelerator else max(1, min(4, os.cpu_count() or 1))


def _wait_until_ready(pool: Workers, reporter: Reporter) -> str:
    reporter.say("Loading the task ...")
    hashes: list[str] = []
    while pool.busy:
        hashes += [event.value for event in pool.events(timeout=1.0)]
    return hashes[0]


def _probe(plan: Plan, out: Path, pool: Workers, reporter: Reporter, workers: int) -> None:
    path = out / "probe.json"
    if not path.exists():
        reporter.say("Timing one training step of each arm, in turn ...")
        pool.give("probe")
        while pool.busy:
            for event in pool.events(timeout=1.0):
                write_json(path, event.value)
    seconds = [arm["seconds"] for arm in read_json(path).values()]
    reporter.steps_per_second = workers * len(seconds) / sum(seconds)


def _run_all(plan: Plan, out: Path, data: str, pool: Workers, reporter: Reporter) -> None:
    done = {run.spec.run_id: run for run in read_runs(out / "runs") if run.outcome}
    announced = False
    while True:
        now = agenda(plan, data, done.values(), pool.running)
        reporter.plan(
            steps=now.planned_steps,
            runs=now.planned_runs,
            done_steps=sum(run.spec.steps for run in done.values()),
            done_runs=len(done),
        )
        if not announced:
            _announce(plan, reporter, now.planned_runs, len(done))
            announced = True
        if now.finished:
            return
        for spec in now.ready[: pool.free]:
            pool.give(spec)
            reporter.begin(spec)
        for event in pool.events(timeout=1.0):
            if event.kind == "step":
                reporter.advance(event.run_id, event.value)
            else:
                reporter.end(event.run_id, event.value)
                done[event.run_id] = read_run(out / "runs" / event.run_id)


def _announce(plan: Plan, reporter: Reporter, runs: int, done: int) -> None:
    left = reporter.seconds_left() or 0.0
    kept = f", {done} of them done before" if done else ""
    reporter.say(
        f"{runs} runs{kept}: {', '.join(plan.arms)}, learning rates tuned alike, then "
        f"{len(plan.comparison.seeds)} paired seeds and a ladder of budgets for "
        f"{plan.comparison.baseline}. About {max(1, round(left / 60))} min. Stop whenever you "
        "like: the same command goes on."
    )

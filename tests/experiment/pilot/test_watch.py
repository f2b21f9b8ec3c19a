"""Watching a pilot: what its folder tells while it is being written, and when the watching ends."""

from __future__ import annotations

import io
import json
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mars_optim.cli.watch import watch
from mars_optim.errors import UserError
from mars_optim.experiment.analysis import analyse
from mars_optim.experiment.live.view import view_of
from mars_optim.experiment.pilot.progress import STATUS, Reporter
from mars_optim.experiment.pilot.standing import lines
from mars_optim.experiment.pilot.status import take
from mars_optim.experiment.plan.plan_file import load_plan, plan_toml
from mars_optim.experiment.records import Failure, Outcome, lock, read_runs
from mars_optim.experiment.records.run import record_failure
from mars_optim.experiment.report import Messages
from tests.support.pretend_pilot import status, unfinished_run
from tests.support.written_pilot import write_pilot


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A pilot of which seeds 4 and 5 are still missing."""
    out = tmp_path / "pilot"
    write_pilot(out, speedup=1.3)
    for seed in (4, 5):
        for folder in (out / "runs").glob(f"*-seed{seed}-*"):
            shutil.rmtree(folder)
    return out


def shown(out: Path, *, terminal: bool = False, **options: Any) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, highlight=False)
    watch(out, console, **options)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_once_shows_runs_tuning_and_interim_differences(out: Path) -> None:
    run = unfinished_run(out, "mars-adamw", seed=4, steps=1000, rows=3)
    status(out, running={run: 333}, planned_runs=39, seconds_left=200.0)
    text = shown(out, once=True)
    assert "27 of 39 runs done, about 3:20 left" in text
    assert "mars-adamw, lr 0.003, seed 4, 1,000 steps" in text
    assert "33 %, loss 2.5" in text
    assert "0.003:\u00a0" in text
    assert "INTERIM, do not decide on it" in text
    assert "3/5" in text
    assert "23 % (" in text


def test_the_verdict_so_far_is_told_if_every_pair_is_a_look(out: Path) -> None:
    plan = load_plan(out / "plan.toml")
    every = replace(plan, decision=replace(plan.decision, looks="every-pair"))
    (out / "plan.toml").write_text(plan_toml(every))
    run = unfinished_run(out, "mars-adamw", seed=4, steps=1000, rows=3)
    status(out, running={run: 333}, planned_runs=39, seconds_left=200.0)
    text = shown(out, once=True)
    assert "Paired with adamw: Go so far; these intervals hold at every look" in text
    assert "INTERIM" not in text


def test_half_written_files_are_passed_over(out: Path) -> None:
    run = unfinished_run(out, "adamw", seed=4, steps=1000, rows=2)
    rows = out / "runs" / run / "rows.jsonl"
    rows.write_text(rows.read_text() + '{"step": 40, "lo')
    status(out, running={run: 20})
    (out / "runs" / "begun").mkdir()
    snapshot = take(out)
    assert [(p.step, p.loss) for p in snapshot.running] == [(20, 2.5)]
    assert snapshot.unreadable == ()
    (out / STATUS).write_text('{"state": "runn')
    assert take(out).state == "waiting"
    (out / "runs" / run / "manifest.json").write_text('{"format": 1')
    assert run in " ".join(take(out).unreadable)
    words = shown(out, once=True).split()  # lines break by the length of the path
    assert "cannot be read" in " ".join(words)


@pytest.mark.parametrize(
    "said",
    [
        '{"state": 3}',
        '{"state": "asleep"}',
        '{"state": "running", "running": 3, "waiting": 7, "planned_runs": "x"}',
        '{"state": "running", "running": {"x": "y"}, "share": "x", "seconds_left": []}',
    ],
)
def test_what_no_pilot_says_of_itself_is_passed_over(out: Path, said: str) -> None:
    (out / STATUS).write_text(said)
    snapshot = take(out)
    assert snapshot.state in ("waiting", "running")
    assert (snapshot.running, snapshot.share, snapshot.seconds_left) == ((), None, None)
    assert "27 of" in shown(out, once=True)


@pytest.mark.parametrize("finished", [True, False])
def test_a_pilot_that_its_budget_ended_says_how_to_go_on(out: Path, finished: bool) -> None:
    plan = load_plan(out / "plan.toml")
    paid = replace(plan, cost=replace(plan.cost, budget=10.0, price_per_hour=1.0))
    (out / "plan.toml").write_text(plan_toml(paid))
    if not finished:
        shutil.rmtree(out / "runs")
        (out / "runs").mkdir()
    status(out, state="ended", planned_runs=39)
    assert take(out).out_of_budget
    assert "raise cost.budget" in " ".join(shown(out, once=True).split())
    state = view_of(take(out), Messages()).state
    assert "its budget is spent" in state
    if not finished:
        with pytest.raises(UserError, match="raise it if it is spent"):
            analyse(out)


def test_what_failed_is_not_said_to_be_the_budgets_doing(out: Path) -> None:
    plan = load_plan(out / "plan.toml")
    paid = replace(plan, cost=replace(plan.cost, budget=10.0, price_per_hour=1.0))
    (out / "plan.toml").write_text(plan_toml(paid))
    run = unfinished_run(out, "adamw", seed=4, steps=1000, rows=2)
    spec = next(r.spec for r in take(out).runs if r.spec.run_id == run)
    record_failure(out / "runs", spec, Failure("failed", "out of memory"))
    status(out, state="ended", planned_runs=39)
    assert not take(out).out_of_budget


def test_watch_ends_with_pilot_and_lists_runs_ended_meanwhile(out: Path) -> None:
    status(out, planned_runs=28)
    new = next((out / "runs").glob("nadamw-*-seed3-*"))
    hidden = shutil.move(new, out / "hidden")

    def sleep(seconds: float) -> None:
        if (out / "hidden").exists():
            shutil.move(hidden, new)
        else:
            status(out, state="ended")

    lines = shown(out, sleep=sleep).splitlines()
    assert lines[0] == "26 of 28 runs done"
    assert lines[1].startswith(" 27/28  nadamw, lr 0.001, seed 3, 1,000 steps")
    assert "The pilot has ended." in lines


@pytest.mark.parametrize("state", ["ended", "stopped"])
@pytest.mark.parametrize("terminal", [False, True])
def test_a_pilot_that_is_over_is_shown_and_not_waited_for(
    out: Path, state: str, terminal: bool
) -> None:
    status(out, state=state)
    text = shown(out, terminal=terminal, sleep=pytest.fail)
    assert {"ended": "has ended", "stopped": "run the same command again"}[state] in text


def test_a_terminal_gets_a_picture_that_changes(out: Path) -> None:
    status(out)
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        status(out, state="ended" if len(looks) == 3 else "running", beat=len(looks))

    text = shown(out, terminal=True, every=0.5, sleep=sleep)
    assert looks == [0.5] * 3
    assert text.count("runs done") >= 4


def test_a_pilot_that_was_killed_is_not_waited_for(out: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    status(out, pid=dead.pid)
    assert "ended from outside" in shown(out, sleep=pytest.fail)
    status(out, pid=dead.pid, host="another")  # nothing is known of its processes
    assert take(out).state == "running"


def test_the_lock_is_neither_needed_nor_taken(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lock.pilot_lock(out):
        monkeypatch.setattr(lock, "_lock", pytest.fail)
        assert shown(out, once=True)


def test_a_folder_without_a_pilot_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no pilot"):
        take(tmp_path)


def test_the_pilot_says_how_it_stands_and_how_it_ended(out: Path) -> None:
    console = Console(file=io.StringIO())
    run = unfinished_run(out, "adamw", seed=4, steps=1000, rows=2)
    spec = next(r.spec for r in read_runs(out / "runs") if r.spec.run_id == run)
    with Reporter(console, out / STATUS) as reporter:
        reporter.begin(spec)
        reporter.plan(steps=1000, runs=1, done_steps=0, done_runs=0)
        reporter._written = 0.0  # a second has gone by
        reporter.advance(run, 120)
        said = json.loads((out / STATUS).read_text())
        assert said["running"] == {run: 120}
        assert said["host"] == platform.node()
        assert take(out).state == "running"
    assert take(out).state == "ended"
    with pytest.raises(KeyboardInterrupt), Reporter(console, out / STATUS):
        raise KeyboardInterrupt
    assert take(out).state == "stopped"


def test_the_pilot_and_who_looks_on_show_the_same(out: Path) -> None:
    run = unfinished_run(out, "adamw", seed=4, steps=1000, rows=0)
    spec = next(r.spec for r in read_runs(out / "runs") if r.spec.run_id == run)
    with Reporter(Console(file=io.StringIO()), out / STATUS) as reporter:
        reporter.plan(steps=39_000, runs=39, done_steps=27_000, done_runs=27)
        reporter.begin(spec)
        reporter.advance(run, 120)
        for why in ("", "in the queue"):
            reporter.wait("another", why)
            reporter.wait(run, why)
            own, seen = reporter.standing("running"), take(out)
            assert lines(seen) == lines(own)
            assert (seen.done_runs, seen.planned_runs, seen.share) == (27, 39, own.share)
    assert [str(line) for line in lines(own)] == [
        "adamw, lr 0.001, seed 4, 1,000 steps (comparing at the tuned rates): in the queue: 12 %",
        "another: in the queue",
    ]


def test_a_status_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    with Reporter(Console(file=io.StringIO()), tmp_path / "nowhere" / STATUS) as reporter:
        reporter.plan(steps=1, runs=1, done_steps=0, done_runs=0)


def test_a_reason_is_shown_as_it_is(out: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    run = unfinished_run(out, "adamw", seed=4, steps=1000, rows=2)
    spec = next(r.spec for r in read_runs(out / "runs") if r.spec.run_id == run)
    with Reporter(console) as reporter:
        reporter.begin(spec)
        lost = dict(status="diverged", final_loss=None, steps=1, tokens=1, seconds=1.0)
        reporter.end(run, Outcome(**lost, parameters=1, state_bytes=1, reason="[bold]inf[/nan]"))
    assert "[bold]inf[/nan]" in console.file.getvalue()  # type: ignore[attr-defined]

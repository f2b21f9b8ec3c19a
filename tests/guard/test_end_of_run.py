"""The end of a guarded run: its last steps are judged, and its log says so."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mars_optim import Guard
from mars_optim.experiment.records.production import read_guard
from tests.support.run_to_guard import HISTORY, QUICK, Run, events


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "guard.jsonl"


def guard_of(run: Run, log: Path) -> Guard:
    options = dict(baseline=HISTORY, settings=QUICK, log=log, step=run.step)
    return Guard(run.net, run.optimizer, **options)  # type: ignore[arg-type]


def test_a_finished_run_says_so_and_is_watched_no_more(log: Path) -> None:
    run = Run()
    guard = guard_of(run, log)
    assert run.guarded(guard, {}, steps=17) is None
    assert guard.finish() is None
    assert events(log)[-1] | {"time": ""} == {
        "event": "end", "step": guard.step, "rolled_back": False, "time": "",
    }  # fmt: skip
    assert read_guard(log).ended
    assert not run.optimizer._optimizer_step_post_hooks


def test_the_last_steps_are_judged_before_the_end(log: Path) -> None:
    run = Run()
    guard = guard_of(run, log)
    run.train(run.optimizer)
    assert guard.watch(loss=math.nan) is None  # not read yet
    back = guard.finish()
    assert back is not None
    assert [e["event"] for e in events(log)][-1] == "rollback"
    run.train(back.optimizer, 3)
    assert guard.finish() is None  # and now it has ended, in AdamW
    assert events(log)[-1]["rolled_back"]
    assert all(torch.isfinite(w).all() for w in run.weights())


def test_a_guard_that_saw_no_step_writes_no_end(log: Path) -> None:
    guard_of(Run(), log).finish()
    assert not log.exists()


def test_a_run_that_goes_on_after_its_end_is_under_way(log: Path) -> None:
    run = Run()
    guard = guard_of(run, log)
    run.guarded(guard, {}, steps=17)
    state = guard.state_dict()
    guard.finish()
    again = guard_of(run, log)
    again.load_state_dict(state)
    run.guarded(again, {}, steps=17)
    assert not read_guard(log).ended

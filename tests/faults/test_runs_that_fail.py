"""A run that dies, hangs or fails costs itself, never the pilot, and is missing, not lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.hurt import Pilot, alive, children_of, wait_for

TUNING = "mars-adamw-lr0.003-seed0"
COMPARED = "adamw-lr0.0124-seed2-steps10"


def failures(pilot: Pilot, part: str) -> list[dict[str, Any]]:
    (path,) = (pilot.out / "runs").glob(f"{part}*/failures.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        ("die", "died", "its process was ended from outside (killed: out of memory?)"),
        ("fail", "failed", "RuntimeError: the loss [bold] is out of bounds"),
        ("exhaust_memory", "failed", "MemoryError"),
        ("hang", "timed out", "it took longer than its time limit"),
    ],
)
def test_run_that_fails_once_is_retried_to_undisturbed_tables(
    pilot: Pilot, undisturbed: Pilot, fault: str, kind: str, reason: str
):
    pilot.faults(dict(run=TUNING, step=3, fault=fault), dict(run=COMPARED, step=9, fault=fault))
    done = pilot.run(running__limit_minutes="0.03" if fault == "hang" else "1")
    assert done.returncode == 0, done.stderr
    assert pilot.tables() == undisturbed.tables()
    assert done.stdout.count(f"{kind}: {reason}") == 2
    for run in (TUNING, COMPARED):
        (failure,) = failures(pilot, run)
        assert (failure["kind"], failure["reason"].strip(": ")) == (kind, reason)
    again = {run for run in pilot.computed() if pilot.computed().count(run) > 1}
    assert len(pilot.computed()) == len(undisturbed.computed()) + 2
    assert len(again) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "tries"), [("die", 3), ("hang", 2)])
def test_run_that_keeps_failing_is_missing_and_others_go_on(
    pilot: Pilot, undisturbed: Pilot, fault: str, tries: int
):
    pilot.faults(dict(run=COMPARED, step=3, fault=fault, times=tries))
    done = pilot.run(running__limit_minutes="0.03" if fault == "hang" else "1")
    assert done.returncode == 3
    missing = undisturbed.losses().keys() - pilot.losses().keys()
    assert [run[: len(COMPARED)] for run in missing] == [COMPARED]
    assert pilot.losses().items() <= undisturbed.losses().items()
    assert len(failures(pilot, COMPARED)) == tries
    assert f"{missing.pop()} is missing: tried {tries} times, " in pilot.reasons()
    again = pilot.run()  # nothing happens to it any more
    assert again.returncode == 0, again.stderr
    assert pilot.tables() == undisturbed.tables()
    assert pilot.reasons() == undisturbed.reasons()


@pytest.mark.slow
def test_arm_whose_tuning_fails_is_left_out_of_the_comparison(pilot: Pilot, undisturbed: Pilot):
    pilot.faults(dict(run="nadamw-lr0.024-seed0", step=3, fault="die", times=3))
    done = pilot.run()
    assert done.returncode == 3
    theirs = {r: x for r, x in undisturbed.losses().items() if not r.startswith("nadamw")}
    ours = {r: x for r, x in pilot.losses().items() if not r.startswith("nadamw")}
    assert ours == theirs
    assert "nadamw-lr0.024-seed0" in pilot.reasons()
    assert pilot.run().returncode == 0
    assert pilot.tables() == undisturbed.tables()


@pytest.mark.slow
def test_without_a_tuned_baseline_nothing_is_compared(pilot: Pilot):
    pilot.faults(dict(run="adamw-lr0.024-seed0", step=3, fault="die", times=99))
    done = pilot.run()
    assert done.returncode == 3
    assert not any("seed1" in run for run in pilot.losses())
    assert any(run.startswith("mars-adamw-lr0.006-seed0") for run in pilot.losses())


@pytest.mark.slow
def test_pilot_whose_runs_all_fail_ends_with_the_reason(pilot: Pilot):
    pilot.faults(dict(run="adamw", step=1, fault="fail", times=99))
    done = pilot.run(running__retries="0")
    assert done.returncode == 3
    assert done.stderr.startswith(f"mars: error: {pilot.out} holds no finished run: all 3 that")
    assert "RuntimeError: the loss [bold] is out of bounds" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.slow_but_one
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_hangs_ends_with_a_killed_pilot(pilot: Pilot, undisturbed: Pilot, workers: int):
    pilot.faults(dict(run=TUNING, step=3, fault="hang"))
    process = pilot.start(workers=workers)
    wait_for(lambda: any(pilot.out.parent.glob("done-hang*")))
    children = children_of(process.pid)
    pilot.kill(process)
    wait_for(lambda: not any(map(alive, children)), seconds=9.0)
    assert pilot.run().returncode == 0
    assert pilot.tables() == undisturbed.tables()


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing(pilot: Pilot, undisturbed: Pilot):
    done = pilot.run(faults="clock", running__limit_minutes="0.5")
    assert done.returncode == 0, done.stderr
    assert pilot.tables() == undisturbed.tables()
    assert "timed out" not in done.stdout

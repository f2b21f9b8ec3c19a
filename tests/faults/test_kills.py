"""Killed at any moment, whoever is killed, a pilot ends with the tables of an undisturbed one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.hurt import Pilot, children_of, wait_for

KILLS = 20


def kill_something(pilot: Pilot, process: subprocess.Popen[str], chance: random.Random) -> bool:
    """kill -9 for the pilot, or for one of its workers; whether the pilot is dead."""
    workers = children_of(process.pid)
    if chance.random() < 0.5 or not workers:
        pilot.kill(process)
        return True
    with contextlib.suppress(ProcessLookupError):
        os.kill(chance.choice(workers), signal.SIGKILL)
    return False


@pytest.mark.slow
def test_twenty_random_kills_leave_the_undisturbed_tables(tmp_path: Path):
    chance = random.Random(1)
    plan = {"running__retries": "100", "comparison__seeds": "[1, 2, 3, 4, 5, 6, 7]"}
    undisturbed, pilot = Pilot(tmp_path / "undisturbed" / "pilot"), Pilot(tmp_path / "pilot")
    undisturbed.out.parent.mkdir()
    assert undisturbed.run(**plan).returncode == 0

    kept: dict[Path, int] = {}
    process = pilot.start(workers=2, step=0.03, **plan)
    try:
        for kill in range(KILLS):
            time.sleep(chance.uniform(0.0, 1.0))
            assert process.poll() is None, f"it ended before kill {kill}: {process.communicate()}"
            kept |= {m: m.stat().st_mtime_ns for m in pilot.finished().values()}
            if kill_something(pilot, process, chance):
                process = pilot.start(workers=2, step=0.03, **plan)
    finally:
        pilot.end()
    done = pilot.run(**plan)
    assert done.returncode == 0, done.stdout + done.stderr
    assert pilot.tables() == undisturbed.tables()
    assert pilot.losses() == undisturbed.losses()
    for path, written in kept.items():
        assert path.stat().st_mtime_ns == written, "a finished run was computed again"


@pytest.mark.slow
def test_a_worker_killed_while_it_loads_the_task_is_replaced(pilot: Pilot, undisturbed: Pilot):
    process = pilot.start(workers=2)
    wait_for(lambda: len(children_of(process.pid)) >= 2)
    for worker in children_of(process.pid)[-2:]:
        os.kill(worker, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stdout + stderr
    assert pilot.tables() == undisturbed.tables()


@pytest.mark.slow
def test_two_pilots_on_one_folder_compute_nothing_twice(pilot: Pilot, undisturbed: Pilot):
    both = [pilot.start(step=0.01), pilot.start(step=0.01)]
    ends = [process.communicate(timeout=60) for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], ends
    refused = next(e for process, (_, e) in zip(both, ends, strict=True) if process.returncode)
    assert refused.startswith(f"mars: error: another pilot is running in {pilot.out}")
    assert sorted(pilot.computed()) == sorted(undisturbed.computed())
    assert pilot.tables() == undisturbed.tables()

"""One pilot per folder, whichever way the last one ended."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.records import lock
from mars_optim.experiment.records.lock import (
    folder_lock,
    is_locked,
    pilot_lock,
    run_lock,
    worker_lock,
)

pytest.importorskip("fcntl")

HOLD = """
import sys, pathlib
from mars_optim.experiment.records import lock
with getattr(lock, sys.argv[1])(pathlib.Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.readline()
"""

TRY = """
import sys, pathlib
from mars_optim.experiment.records import lock
try:
    with lock.pilot_lock(pathlib.Path(sys.argv[1])):
        print("held")
except Exception as error:
    print(type(error).__name__)
"""

Hold = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    """Start a process that holds a lock until it reads a line or is killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(kind: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, kind, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def end_properly(process: subprocess.Popen[str]) -> None:
    process.communicate("\n")
    assert process.returncode == 0


def end_by_kill_9(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.returncode == -9


@pytest.mark.parametrize("end", [end_properly, end_by_kill_9])
def test_a_second_pilot_is_refused_until_the_first_has_ended(
    tmp_path: Path, hold: Hold, end: Callable[[subprocess.Popen[str]], None]
):
    first = hold("pilot_lock")
    message = f"another pilot is running in {tmp_path}"
    for _ in range(2):  # being refused does not take the lock
        with pytest.raises(UserError, match=message), pilot_lock(tmp_path):
            pytest.fail("two pilots in one folder")
    end(first)
    with pilot_lock(tmp_path):
        pass


def test_a_pilot_in_this_process_refuses_another_process(tmp_path: Path):
    with pilot_lock(tmp_path):
        done = subprocess.run(
            [sys.executable, "-c", TRY, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout == "UserError\n"


def test_pilots_in_different_folders_do_not_disturb_each_other(tmp_path: Path, hold: Hold):
    hold("pilot_lock")
    (tmp_path / "other").mkdir()
    with pilot_lock(tmp_path / "other"):
        pass


def test_pilot_is_refused_while_an_earlier_worker_lives(
    tmp_path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lock, "PATIENCE", 0.15)
    worker = hold("worker_lock")
    message = f"a worker of an earlier pilot still writes in {tmp_path}"
    with pytest.raises(UserError, match=message), pilot_lock(tmp_path):
        pytest.fail("started beside a worker")
    end_by_kill_9(worker)
    with pilot_lock(tmp_path):
        pass


def test_a_pilot_waits_for_the_workers_of_an_earlier_one_to_end(tmp_path: Path, hold: Hold):
    worker = hold("worker_lock")
    timer = threading.Timer(0.4, worker.kill)
    started = time.monotonic()
    timer.start()
    with pilot_lock(tmp_path):
        assert time.monotonic() - started >= 0.4
    timer.join()
    assert worker.wait() == -9


def test_workers_of_one_pilot_share_their_lock_and_each_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lock, "PATIENCE", 0.0)
    with pilot_lock(tmp_path):
        first, second = worker_lock(tmp_path), worker_lock(tmp_path)
        first.__enter__()
        second.__enter__()
    first.__exit__(None, None, None)
    with pytest.raises(UserError, match="a worker of an earlier"), pilot_lock(tmp_path):
        pytest.fail("the second worker was forgotten")
    second.__exit__(None, None, None)
    with pilot_lock(tmp_path):
        pass


def test_the_lock_is_free_again_after_an_error(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), pilot_lock(tmp_path):
        _ = 1 / 0
    with pilot_lock(tmp_path):
        pass


@pytest.mark.parametrize("kind", [pilot_lock, worker_lock, run_lock, folder_lock])
def test_a_file_system_without_locks_is_named(
    tmp_path: Path, kind: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
):
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(UserError, match=r"lock: this file system has no locks"), kind(tmp_path):
        pytest.fail("without a lock")


def test_a_run_is_locked_while_it_is_held(tmp_path: Path):
    assert not is_locked(tmp_path)
    with run_lock(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)

"""A disk that fills up ends the pilot in one line, and costs no finished run."""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import math
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from rich.console import Console

from mars_optim.errors import UserError
from mars_optim.experiment.analysis import analyse
from mars_optim.experiment.executors.base import Event
from mars_optim.experiment.executors.worker import describe
from mars_optim.experiment.pilot.run import run_pilot
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.plan_file import make_plan
from tests.support import pretended_job
from tests.support.hurt import OPTIONS, Pilot, wait_for

PLAN = make_plan({}, tuple(f"{key}={value}" for key, value in OPTIONS.items()))


class HereAndNow:
    """A pool that does all work in this process as soon as it is given."""

    count = sharing = 1
    running: tuple[RunSpec, ...] = ()

    def __init__(self, plan: Plan, out: Path) -> None:
        self.job, self.out = pretended_job.PretendedJob(plan, out), out
        self._events = [Event("ready", "starting", self.job.fingerprint)]

    def __enter__(self) -> HereAndNow:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    @property
    def busy(self) -> int:
        return len(self._events)

    @property
    def free(self) -> int:
        return 0 if self._events else 1

    def give(self, work: RunSpec | Literal["probe"], seconds: float = math.inf) -> None:
        if work == "probe":
            self._events.append(Event("probed", "probe", self.job.probe()))
            return
        try:
            self._events.append(Event("done", work.run_id, self.job.run(work, lambda step: None)))
        except OSError as error:  # as a worker does
            raise UserError(describe(error, self.out)) from None

    def events(self, timeout: float) -> Iterator[Event]:
        events, self._events = self._events, []
        yield from events


class Disk:
    """Counts what is written below a folder; from the ``room``-th write on there is no room."""

    def __init__(self, folder: Path, room: float) -> None:
        self.folder, self.room, self.writes = folder, room, 0

    def open(self, file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        handle = REAL_OPEN(file, mode, *rest, **options)
        if set(mode) & set("wax+") and Path(file).is_relative_to(self.folder):
            real_write = handle.write
            handle = Writer(handle, lambda text: self.take(file) or real_write(text))
        return handle

    def take(self, file: Any) -> None:
        self.writes += 1
        if self.writes > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))


class Writer:
    """A file whose writes go another way."""

    def __init__(self, handle: Any, write: Any) -> None:
        self._handle, self.write = handle, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        self._handle.close()


REAL_OPEN = io.open


@contextlib.contextmanager
def disk(monkeypatch: pytest.MonkeyPatch, folder: Path, room: float) -> Iterator[Disk]:
    made = Disk(folder, room)
    with monkeypatch.context() as patch:
        patch.setattr(io, "open", made.open)
        patch.setattr(builtins, "open", made.open)
        yield made


def carry_out(out: Path) -> None:
    assert run_pilot(PLAN, out, Console(file=io.StringIO()), HereAndNow) == {}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretended_job, "STEP_SECONDS", 0.0)


@pytest.mark.slow
def test_pilot_with_any_write_failing_resumes_to_the_same_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with disk(monkeypatch, tmp_path, math.inf) as counted:
        carry_out(tmp_path / "whole")
    whole = analyse(tmp_path / "whole")
    assert counted.writes > 250
    early = range(32)  # all of the folder and two runs; then here and there
    for room in (*early, *range(32, counted.writes, 37)):
        out = tmp_path / str(room)
        with disk(monkeypatch, tmp_path, room), pytest.raises(UserError) as error:
            carry_out(out)
        assert "No space left on device; free some space, then run the same" in str(error.value)
        assert str(tmp_path) in str(error.value)
        assert not list(out.rglob("*.tmp")), "half a file was left"
        carry_out(out)
        again = analyse(out)
        assert (again.arms, again.verdict, again.totals) == (
            whole.arms,
            whole.verdict,
            whole.totals,
        )
        computed = (out / "computed.txt").read_text().splitlines()
        assert len(computed) <= whole.totals.runs + 1, "a finished run was computed again"


@pytest.mark.slow
def test_full_disk_in_a_worker_is_not_a_failure_of_its_run(pilot: Pilot, undisturbed: Pilot):
    pilot.faults(dict(run="nadamw-lr0.012-seed0", step=3, fault="fill_disk"))
    done = pilot.run()
    assert done.returncode == 2
    assert done.stderr == (
        "mars: error: rows.jsonl: No space left on device; free some space, then run the same "
        "command again to continue\n"
    )
    assert not list(pilot.out.rglob("failures.jsonl"))
    assert pilot.run().returncode == 0
    assert pilot.tables() == undisturbed.tables()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 70 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=70m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_real_disk_that_fills_up(small_disk: Path, undisturbed: Pilot):
    pilot = Pilot(small_disk / "pilot")
    process = pilot.start(step=0.01)
    wait_for(lambda: len(pilot.finished()) > 2)
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 2, stdout
    assert "No space left on device; free some space" in stderr
    assert len(stderr.splitlines()) == 1
    assert shutil.disk_usage(small_disk).free == 0
    filler.unlink()
    before = pilot.finished()
    assert len(before) > 2
    done = pilot.run()
    assert done.returncode == 0, done.stderr
    assert pilot.tables() == undisturbed.tables()
    assert not {run for run in before if pilot.computed().count(run) > 1}

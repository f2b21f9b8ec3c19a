"""A SLURM queue without accounting, as many small clusters are: a stand-in for its programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mars_optim.experiment.executors.slurm_queue import Standing, ask
from tests.faults.test_queue import SMALL
from tests.support.hurt import Pilot, wait_for
from tests.support.paths import ROOT

pytest.importorskip("submitit")

QUEUE = ("--executor", "slurm")
PROGRAMS = ROOT / "tests/support/slurm/stand_in.py"


class Cluster:
    """The stand-in's folder; its programs are on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def set(self, what: str, text: str = "") -> None:
        (self.folder / what).write_text(text)

    def clear(self, what: str) -> None:
        (self.folder / what).unlink()

    def states(self) -> dict[str, str]:
        return {path.stem: path.read_text() for path in self.folder.glob("*.state")}

    def running(self) -> list[str]:
        return [job for job, state in self.states().items() if state == "RUNNING"]

    def cancel(self, job: str) -> None:
        subprocess.run(["scancel", job], check=True)

    def limit(self, job: str) -> str:
        """The time that was asked for."""
        script = (self.folder / f"{job}.sh").read_text().splitlines()
        (time,) = (line for line in script if line.startswith("#SBATCH --time="))
        return time.partition("=")[2]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    folder, programs = tmp_path / "cluster", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    for name in ("sbatch", "squeue", "scancel", "srun", "sacct", "scontrol"):
        path = programs / name
        path.write_text(f"#!{sys.executable}\n" + PROGRAMS.read_text().partition("\n")[2])
        path.chmod(0o755)
    (programs / "stand_in.py").write_text(PROGRAMS.read_text())
    monkeypatch.setenv("STAND_IN", str(folder))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    yield Cluster(folder)
    for path in folder.glob("*.pid"):
        try:
            os.killpg(int(path.read_text()), signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.fixture
def queued(cluster: Cluster, tmp_path: Path) -> Iterator[Pilot]:
    made = Pilot(tmp_path / "pilot")
    yield made
    made.end()


def reasons(pilot: Pilot) -> list[str]:
    lines = [x for f in pilot.out.glob("runs/*/failures.jsonl") for x in f.read_text().splitlines()]
    return [json.loads(line)["reason"] for line in lines]


def end(pilot: Pilot, process: subprocess.Popen[str]) -> tuple[int, str]:
    out, error = process.communicate(timeout=120)
    return process.returncode, out + error


@pytest.mark.slow
def test_cancelled_job_counts_once_and_waiting_jobs_say_why(cluster: Cluster, queued: Pilot):
    process = queued.start(*QUEUE, workers=2, step=0.2, **SMALL)
    wait_for(lambda: len(queued.computed()) >= 2)
    first = max(cluster.running(), key=int)
    cluster.set("hold")
    cluster.cancel(first)
    wait_for(lambda: "Resources" in (queued.out / "status.json").read_text())
    look = subprocess.run(
        [sys.executable, "-m", "mars_optim", "watch", str(queued.out), "--once"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "waits in the queue (Resources)" in " ".join(look.stdout.split())
    cluster.clear("hold")
    status, said = end(queued, process)
    assert status == 0, said
    assert reasons(queued) == [f"its job {first} was cancelled"]
    assert "waits in the queue (Resources)" in said


@pytest.mark.slow
def test_a_job_that_neither_queue_nor_accounting_knows_is_over(cluster: Cluster, queued: Pilot):
    process = queued.start(*QUEUE, workers=2, step=0.1, **SMALL)
    wait_for(lambda: len(queued.computed()) >= 2)
    cluster.set("forgets")
    lost = max(cluster.running(), key=int)
    cluster.cancel(lost)
    status, said = end(queued, process)
    assert status == 0, said
    (reason,) = reasons(queued)
    assert "neither queue nor accounting knows it" in reason


@pytest.mark.slow
def test_a_controller_that_is_away_for_a_while_costs_nothing(
    cluster: Cluster, queued: Pilot, monkeypatch: pytest.MonkeyPatch
):
    process = queued.start(*QUEUE, workers=2, step=0.05, **SMALL)
    wait_for(lambda: len(queued.computed()) >= 2)
    cluster.set("down")
    wait_for(lambda: "does not answer" in (queued.out / "status.json").read_text())
    cluster.clear("down")
    status, said = end(queued, process)
    assert status == 0, said
    assert reasons(queued) == []
    assert len(queued.computed()) == len(set(queued.computed())), "a run was computed twice"


@pytest.mark.slow
def test_jobs_ask_for_a_time_that_fits_them(cluster: Cluster, queued: Pilot):
    done = queued.run(*QUEUE, workers=2, **SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [cluster.limit(job) for job in "123"] == ["60", "240", "21"]  # load, probe, first run


@pytest.mark.slow
def test_queue_time_limit_is_named_with_option_and_not_retried(cluster: Cluster, queued: Pilot):
    queued.faults(dict(run="seed0", step=3, fault="reach_the_limit", times=9))
    done = queued.run(*QUEUE, "--executor-option", "time=10:00", workers=2, **SMALL)
    assert done.returncode == 3, done.stdout + done.stderr
    assert cluster.limit("1") == cluster.limit("3") == "10"
    assert len(reasons(queued)) == 2
    for reason in reasons(queued):
        assert "reached the queue's time limit of 10 minutes: raise it by" in reason
        assert "--executor-option timeout_min=N" in reason


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("invalid partition specified: nowhere", ["partition=NAME", "sinfo"]),
        ("Invalid generic resource (gres) specification", ["gpus_per_node or gres"]),
        ("Requested node configuration is not available", ["mem_gb", "cpus_per_task"]),
        ("Invalid account or account/partition combination specified", ["account=NAME"]),
        ("Requested time limit is invalid (missing or exceeds some limit)", ["timeout_min"]),
        (
            "Unable to contact slurm controller (connect failure)",
            ["scontrol ping", "again to continue"],
        ),
        ("The moon is in the wrong phase", ["wrong phase", "--executor-option KEY=VALUE"]),
    ],
)
def test_what_sbatch_refuses_is_one_line_with_what_to_change(
    cluster: Cluster, queued: Pilot, said: str, words: list[str]
):
    cluster.set("refuse", f"sbatch: error: Batch job submission failed: {said}")
    done = queued.run(*QUEUE, **SMALL)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("mars: error: ")
    for word in (said, *words):
        assert word in line


@pytest.mark.slow
def test_a_cancelled_loading_job_is_one_line(cluster: Cluster, queued: Pilot):
    cluster.set("hold")
    process = queued.start(*QUEUE, **SMALL)
    wait_for(lambda: any(cluster.folder.glob("1.pid")))
    cluster.cancel("1")
    status, said = end(queued, process)
    assert status == 2
    assert "mars: error: the task cannot be loaded: died: its job 1 was cancelled; see" in said
    assert "Traceback" not in said


def test_scontrol_is_asked_where_squeue_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told = "JobId=7 JobName=mars JobState=PENDING Reason=Priority Dependency=(null)"
    for name, body in (
        ("squeue", "exit 1"),
        ("sacct", "exit 1"),
        (
            "scontrol",
            f'[ "$4" = 7 ] && echo "{told}" || {{ echo "Invalid job id specified" >&2; exit 1; }}',
        ),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert ask(["7", "8"]) == {"7": Standing("PENDING", "Priority"), "8": Standing("GONE")}


def test_while_nobody_answers_no_job_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    standing = ask(["7"])["7"]
    assert not standing.over
    assert "job 7: SLURM's controller does not answer" in standing.waiting("7")


def test_accounting_tells_what_the_queue_has_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "squeue").write_text("#!/bin/sh\necho Invalid job id specified >&2; exit 1\n")
    (tmp_path / "sacct").write_text("#!/bin/sh\necho '7|CANCELLED by 1000'\n")
    for name in ("squeue", "sacct"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert ask(["7", "8"]) == {"7": Standing("CANCELLED"), "8": Standing("GONE")}

"""Runs as jobs of a queue: submitit's own processes on this machine stand in for SLURM's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mars_optim.cli import main
from tests.support.hurt import Pilot, wait_for

pytest.importorskip("submitit")

SMALL = {
    "arms": "['adamw', 'mars-adamw']",
    "tuning__trials": "1",
    "tuning__max_trials": "1",
    "comparison__ladder": "[0.5, 1.5]",
}
QUEUE = ("--executor", "slurm", "--executor-option", "cluster=local")
RUN = "mars-adamw-lr0.003-seed1"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Pilot:
    """The undisturbed pilot of the small plan, by workers on this machine."""
    made = Pilot(tmp_path_factory.mktemp("small") / "pilot")
    assert made.run(**SMALL).returncode == 0
    return made


@pytest.fixture
def queued(tmp_path: Path) -> Iterator[Pilot]:
    made = Pilot(tmp_path / "pilot")
    yield made
    made.end()


@pytest.mark.slow
def test_jobs_that_die_or_fail_are_resubmitted_to_equal_tables(queued: Pilot, small: Pilot):
    queued.faults(dict(run=RUN, step=3, fault="die"), dict(run=RUN, step=4, fault="fail"))
    done = queued.run(*QUEUE, workers=3, **SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert queued.tables() == small.tables()
    assert "ended without a result" in done.stdout
    assert "RuntimeError: the loss [bold] is out of bounds" in done.stdout
    assert len(queued.computed()) == len(small.computed()) + 2


@pytest.mark.slow
def test_jobs_outlive_a_killed_pilot_and_the_next_takes_them_up(queued: Pilot, small: Pilot):
    """Runs that take eight seconds have just begun when the pilot is killed."""
    process = queued.start(*QUEUE, workers=2, step=0.8, **SMALL)
    wait_for(lambda: len(queued.computed()) >= 2)
    queued.kill(process)
    done = queued.run(*QUEUE, workers=2, step=0.0, **SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(queued.computed()) == sorted(small.computed()), "a run was computed twice"
    assert queued.tables() == small.tables()


@pytest.mark.slow
def test_local_workers_leave_alone_what_a_job_still_computes(queued: Pilot, small: Pilot):
    process = queued.start(*QUEUE, workers=2, step=0.5, **SMALL)
    wait_for(lambda: len(queued.computed()) >= 2)
    queued.kill(process)
    done = queued.run(workers=2, **SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(queued.computed()) == sorted(small.computed()), "a run was computed twice"
    assert queued.tables() == small.tables()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*QUEUE, "--executor-option", "partitoin=gpu"], ["partitoin", "partition"]),
        (["--executor", "slurm", "--executor-option", "gpu"], ["'gpu'", "KEY=VALUE"]),
        (["--executor", "slurm", "--workers", "auto"], ["--workers auto", "--executor slurm"]),
        (["--executor", "slurm", "--executor-option", "cluster=sun"], ["sun"]),
        (["--executor", "slurm"], ["srun", "slurm cluster"]),
        ([*QUEUE, "--executor-option", "mem_gb=much"], ["mem_gb", "much"]),
        ([*QUEUE, "--executor-option", "time=noon"], ["timeout_min=noon", "2:30:00"]),
        ([*QUEUE, "--executor-option", "timeout_min=0"], ["timeout_min=0", "at least 1"]),
        (["--executor-option", "partition=gpu"], ["--executor slurm"]),
        (["--executor", "ray"], ["ray", "slurm"]),
    ],
    ids=lambda value: " ".join(value)[-30:],
)
def test_a_mistake_in_the_options_of_a_queue_gives_one_line(
    arguments: list[str],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # without SLURM, wherever this runs
    assert main(["pilot", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mars: error: ")
    assert len(error.splitlines()) == 1
    for word in words:
        assert word in error

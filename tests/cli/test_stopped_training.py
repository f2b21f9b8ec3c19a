"""``mars train``: a run that is stopped goes on, and two processes make one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mars_optim.cli import main
from mars_optim.cli.steps import Steps
from mars_optim.experiment.records import read_run, read_runs
from tests.support.shrunken_recipes import SMALL, little_data, shrunken


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return little_data(tmp_path_factory.mktemp("data"))


def started(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mars_optim", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until a row is there."""
    deadline = time.monotonic() + 120
    while not (
        list(path.glob("runs/*/rows.jsonl")) and any(r.rows for r in read_runs(path / "runs"))
    ):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_train_after_ctrl_c_resumes_from_the_step_it_stopped_at(
    data: dict[str, Path], tmp_path: Path
):
    out = tmp_path / "out"
    command = [*shrunken(data, SMALL, **{"training.steps": 600}), "--out", str(out)]
    process = started(command)
    wait_for(out, process)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert "Stopping after this step; Ctrl-C again stops at once." in told
    found = re.fullmatch(
        r"Stopped\. The same command continues after step ([\d,]+)\.", told.splitlines()[-1]
    )
    assert found
    step = int(found[1].replace(",", ""))
    (run,) = (out / "runs").iterdir()
    assert [p.name for p in (run / "checkpoints").iterdir()] == [f"step-{step:012d}"]
    process = started(command)
    _, told = process.communicate(timeout=240)
    assert process.returncode == 0, told
    assert f"continues after step {step:,}" in told
    whole = tmp_path / "whole"  # in a process too: earlier tests may have left other threads here
    process = started([*command[:-1], str(whole)])
    _, told = process.communicate(timeout=240)
    assert process.returncode == 0, told
    assert read_run(run).final_loss == read_run(whole / "runs" / run.name).final_loss


@pytest.mark.parametrize(("resume", "first"), [("auto", 5), ("never", 1)])
def test_a_stopped_run_goes_on_or_begins_again_as_asked(
    resume: str,
    first: int,
    data: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    command = [*shrunken(data, SMALL), "--out", str(tmp_path), "--resume", resume]
    taken: list[int] = []

    def stop_after_four(self: Steps, step: int) -> None:
        taken.append(step)
        if len(taken) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(Steps, "__call__", stop_after_four)
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 130
    assert "continues after step 4." in capsys.readouterr().err
    assert main(command) == 0
    assert taken == [1, 2, 3, 4, *range(first, 11)]


def test_run_stopped_without_checkpoint_is_said_to_start_over(
    data: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def stop(self: Steps, step: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Steps, "__call__", stop)
    command = [*shrunken(data, SMALL), "--out", str(tmp_path), "--checkpoint-minutes", "0"]
    with pytest.raises(SystemExit):
        main(command)
    assert "starts again, since there is no checkpoint yet." in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_make_one_run_and_the_first_one_speaks(data: dict[str, Path], tmp_path: Path):
    out = tmp_path / "out"
    words = shrunken(data, SMALL, **{"training.accumulation": 2})
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    launch += ["--master-port=0", "--standalone", "-m", "mars_optim", *words, "--out", str(out)]
    done = subprocess.run(
        launch,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("published:") == 2  # before and after, of one process
    alone = tmp_path / "alone"
    assert main([*words, "--out", str(alone)]) == 0
    (run,), (one,) = read_runs(out / "runs"), read_runs(alone / "runs")
    assert run.final_loss == pytest.approx(one.final_loss, rel=1e-5)

"""A whole pilot of the user's own command, in real processes, killed on the way."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.experiment.external.test_command_runs import alive, wait_until
from tests.support.command_runs import COMMAND, FOLDER

PLAN = f"""
arms = ["theirs", "ours"]
[task]
kind = "command"
command = "{COMMAND} {{arm_args}}"
folder = {json.dumps(str(FOLDER))}
[training]
steps = 40
[tuning]
trials = 3
max_trials = 4
[comparison]
baseline = "theirs"
candidate = "ours"
seeds = [1, 2]
ladder = [0.5, 2.0]
[arm.theirs]
lr = 0.01
[arm.ours]
lr = 0.02
arguments = "--pause 0.01 --fault child"
"""


def pilot(folder: Path, *more: str) -> list[str]:
    plan = folder / "plan.toml"
    plan.write_text(PLAN)
    command = [sys.executable, "-m", "mars_optim", "pilot", "--plan", str(plan)]
    return [*command, "--out", str(folder / "pilot"), "--workers", "2", *more]


def finished(folder: Path) -> dict[str, float]:
    """Final loss of every finished run."""
    manifests = [json.loads(m.read_text()) for m in folder.glob("pilot/runs/*/manifest.json")]
    return {m["run_id"]: m["outcome"]["final_loss"] for m in manifests if m["outcome"]}


@pytest.mark.slow
def test_killed_command_pilot_leaves_no_process_and_resumes(tmp_path: Path):
    process = subprocess.Popen(pilot(tmp_path), stdout=subprocess.PIPE, text=True)
    wait_until(lambda: len(finished(tmp_path)) > 2 or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = finished(tmp_path)
    done = subprocess.run(pilot(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    children = [int(p.read_text()) for p in tmp_path.glob("pilot/*/*/job/child")]
    assert children
    assert not any(map(alive, children))
    after = finished(tmp_path)
    assert kept.items() <= after.items()
    verdict = json.loads((tmp_path / "pilot" / "verdict.json").read_text())
    arms = verdict["arms"]
    rates = [arms[name]["lr"] for name in ("theirs", "ours")]
    assert rates == pytest.approx([0.01, 0.02], rel=0.1)  # where the formula has them
    # 1.5 times as quick by the formula
    assert verdict["tokens_saved"]["mean"] == pytest.approx(1 / 3, abs=0.03)
    assert arms["ours"]["step_time_ratio"] == 1.0  # both report 0.01 seconds a step
    assert "command" in verdict["environment"]


TUNED = """
[tuning.range]
lr = [0.25, 4.0]
decay = [0.25, 4.0]
"""
OVER = ["tuning.over=['lr', 'decay']", "tuning.trials=16", "arm.theirs.settings={decay = 2.0}"]
OVER += ["arm.ours.settings={decay = 2.0}", "arm.theirs.arguments=--decay {decay}"]
OVER += ["arm.ours.arguments=--decay {decay}"]


@pytest.mark.slow
def test_a_pilot_tunes_what_its_command_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(globals(), "PLAN", PLAN + TUNED)
    more = [word for text in OVER for word in ("--set", text)]
    done = subprocess.run(pilot(tmp_path, *more), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    verdict = json.loads((tmp_path / "pilot" / "verdict.json").read_text())
    for name, lr in (("theirs", 0.01), ("ours", 0.02)):
        tuned = verdict["tuning"]["arms"][name]
        assert len(tuned["trials"]) == 16
        assert tuned["trials"][0]["decay"] == 2.0
        best = min(tuned["trials"], key=lambda trial: trial["loss"])
        assert tuned["chosen"] == {"lr": best["lr"], "decay": best["decay"]}
        assert tuned["chosen"]["lr"] == pytest.approx(lr, rel=0.7)
        assert tuned["chosen"]["decay"] == pytest.approx(1.0, rel=0.7)  # by the formula
    places = [
        [t["lr"] / lr for t in verdict["tuning"]["arms"][a]["trials"]]
        for a, lr in (("theirs", 0.01), ("ours", 0.02))
    ]
    assert places[0] == pytest.approx(places[1], rel=1e-3)


@pytest.mark.slow
def test_failing_command_ends_pilot_in_one_line_before_the_runs(tmp_path: Path):
    more = ("--set", "arm.ours.arguments=--fault crash")
    done = subprocess.run(pilot(tmp_path, *more), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "ended with status 1: no data on the disk" in done.stderr
    assert finished(tmp_path) == {}


def forecast(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """``mars plan`` of the same pilot, with temporary files in ``folder / "scratch"``."""
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    command = pilot(folder, *more)
    command[command.index("pilot")] = "plan"
    environment = os.environ | {"TMPDIR": str(scratch)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow
def test_the_log_that_a_failed_forecast_names_is_there(tmp_path: Path):
    done = forecast(tmp_path, "--set", "arm.theirs.arguments=--fault crash")
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    (log,) = re.findall(r"\((/[^)]+/log\.txt)\)", line)
    assert "no data on the disk" in Path(log).read_text()


def test_a_failed_forecast_that_names_no_log_leaves_nothing(tmp_path: Path):
    done = forecast(tmp_path, "--set", "task.folder=gone")
    assert done.returncode == 2
    assert list((tmp_path / "scratch").glob("mars-plan-*")) == []


@pytest.mark.slow
def test_command_unable_to_run_ten_steps_is_told_of_probe_steps(
    tmp_path: Path,
):
    more = ["--set", "arm.theirs.arguments=--fault warm-up"]
    more += ["--set", "arm.ours.arguments=--fault warm-up"]
    wrong = forecast(tmp_path, *more)
    assert wrong.returncode == 2
    line = wrong.stderr.splitlines()[-1]
    assert "ZeroDivisionError" in line
    assert "a short run, 10 steps" in line
    assert "running.probe_steps" in line
    for old in (tmp_path / "scratch").glob("mars-plan-*"):
        shutil.rmtree(old)
    right = forecast(tmp_path, *more, "--set", "running.probe_steps=13")
    assert right.returncode == 0, right.stderr
    assert list((tmp_path / "scratch").glob("mars-plan-*")) == []


@pytest.mark.slow
def test_advice_of_a_failed_probe_works_in_the_same_folder(tmp_path: Path):
    wrong = subprocess.run(
        pilot(tmp_path, "--set", "task.loss_key=lost"), capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    (line,) = wrong.stderr.splitlines()
    assert "no row has 'lost'" in line
    assert "set task.loss_key" in line
    right = subprocess.run(pilot(tmp_path), capture_output=True, text=True, check=False)
    assert right.returncode == 0, right.stderr
    assert not (tmp_path / "pilot" / "amendments.jsonl").exists()

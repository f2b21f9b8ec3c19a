"""The examples of one's own job end with a verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mars_optim.experiment.records import read_runs
from tests.support.paths import ROOT

EXAMPLES = ROOT / "examples"
SMALL = {
    "training.steps": "40",
    "tuning.trials": "1",
    "tuning.max_trials": "1",
    "comparison.seeds": "[1, 2]",
    "comparison.ladder": "[0.5, 2.0]",
}


def verdict_of(example: str, out: Path, **changes: str) -> dict[str, Any]:
    """The verdict of a small pilot by the example's plan."""
    plan = EXAMPLES / example / "plan.toml"
    sets = [p for k, v in {**SMALL, **changes}.items() for p in ("--set", f"{k}={v}")]
    command = [sys.executable, "-m", "mars_optim", "pilot", "--plan", str(plan), "--out", str(out)]
    done = subprocess.run([*command, *sets], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    verdict: dict[str, Any] = json.loads((out / "verdict.json").read_text())
    return verdict


@pytest.mark.slow
def test_a_task_in_python(tmp_path: Path):
    verdict = verdict_of("own_task", tmp_path, arms='["adamw", "mars-adamw"]')
    assert verdict["tokens_per_run"] == 40 * 64
    assert verdict["tokens_saved"]["pairs"] == 2
    assert all(run.outcome and run.outcome.final_loss for run in read_runs(tmp_path / "runs"))


@pytest.mark.slow
def test_a_command(tmp_path: Path):
    verdict = verdict_of("own_command", tmp_path, arms='["adamw", "mars-adamw"]')
    assert verdict["tokens_per_run"] == 40 * 64
    assert verdict["tokens_saved"]["pairs"] == 2
    logs = (tmp_path / "runs").glob("*/log.txt")
    assert [log.read_text() for log in logs] == [""] * 10  # it warned of nothing


@pytest.mark.slow
def test_a_command_that_is_judged_by_its_way_to_an_accuracy(tmp_path: Path):
    verdict = verdict_of("to_accuracy", tmp_path, **{"decision.target": "0.3"})
    assert verdict["rule"]["metric"] == "accuracy"
    told = [arm["to_target"] for arm in verdict["arms"].values()]
    assert [found["reached"] for found in told] == [2, 2]
    assert not [run for run in read_runs(tmp_path / "runs") if run.spec.purpose == "ladder"]


def test_the_runs_that_exist_already_are_what_their_script_makes(tmp_path: Path):
    here = EXAMPLES / "existing_runs"
    script = tmp_path / "make_runs.py"
    script.write_text((here / "make_runs.py").read_text())
    subprocess.run([sys.executable, str(script)], check=True)
    made = {p.name: p.read_text() for p in (tmp_path / "runs").iterdir()}
    assert made == {p.name: p.read_text() for p in (here / "runs").iterdir()}

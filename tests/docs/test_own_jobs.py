"""The examples of one's own job end with a verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mars_optim.cli.init import TEMPLATES
from mars_optim.experiment.analysis.design import points
from mars_optim.experiment.external.command_run import Command
from mars_optim.experiment.plan.plan_file import load_plan
from mars_optim.experiment.records import RunWriter, read_runs
from tests.support.paths import ROOT
from tests.support.specs import spec_in

EXAMPLES = ROOT / "examples"
SMALL = {
    "training.steps": "40",
    "tuning.trials": "1",
    "tuning.max_trials": "1",
    "comparison.seeds": "[1, 2]",
    "comparison.ladder": "[0.5, 2.0]",
}


def verdict_of(example: str, out: Path, folder: Path = EXAMPLES, **changes: str) -> dict[str, Any]:
    """The verdict of a small pilot by the example's plan."""
    plan = folder / example / "plan.toml"
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
def test_a_command_whose_budgets_branch_off_a_trunk(tmp_path: Path):
    verdict = verdict_of("command_with_trunk", tmp_path)
    assert verdict["tokens_saved"]["pairs"] == 2
    runs = read_runs(tmp_path / "runs")
    assert sum(bool(run.spec.branches) for run in runs) == 4
    assert sum(bool(run.spec.trunk) for run in runs) == 2 * 2 * 3
    whole = {r.spec.run_id: r.final_loss for r in runs if r.spec.trunk}
    assert len(set(whole.values())) == len(whole)
    assert not list(tmp_path.rglob("step-*")), "states that no branch needs are removed"


@pytest.mark.slow
def test_a_command_whose_arms_are_tuned_in_more_than_the_rate(tmp_path: Path):
    plan = load_plan(EXAMPLES / "tuned_command" / "plan.toml")
    command, losses = Command(plan.task, tmp_path, 1), dict[str, float | None]()
    command.check()
    for at in points(plan.tuning, "mars-adamw", plan.arm["mars-adamw"])[:3]:
        spec = spec_in(plan, "tune", "mars-adamw", at.lr, 0, 40, settings=at.arm)
        writer = RunWriter(tmp_path / "runs", spec, {})
        outcome, _ = command.run(spec, writer)
        writer.finish(outcome)
        losses[spec.run_id] = outcome.final_loss
    assert len(set(losses)) == len(set(losses.values())) == 3


@pytest.mark.slow
def test_a_command_that_is_judged_by_its_way_to_an_accuracy(tmp_path: Path):
    verdict = verdict_of("to_accuracy", tmp_path, **{"decision.target": "0.3"})
    assert verdict["rule"]["metric"] == "accuracy"
    told = [arm["to_target"] for arm in verdict["arms"].values()]
    assert [found["reached"] for found in told] == [2, 2]
    assert not [run for run in read_runs(tmp_path / "runs") if run.spec.purpose == "ladder"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "source"),
    [("finetune", "finetune.py:Lora"), ("finetune", "finetune.py:Full"), ("bandit", "")],
)
def test_a_job_that_is_not_pretraining(
    kind: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    named = {"task.source": source} if source else {}
    arms = '["adamw", "nadamw-auto"]'
    verdict = verdict_of(kind, tmp_path, TEMPLATES, arms=arms, **named, **{"training.steps": "10"})
    assert verdict["candidate"] == "nadamw-auto"
    assert verdict["tokens_saved"]["pairs"] == 2
    assert verdict["rule"]["metric"] == ("reward" if kind == "bandit" else "loss")


@pytest.mark.slow
def test_one_run_of_trls_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("trl")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    options = dict(optimizer="nadamw-auto", lr="2e-3", seed="1", steps="3", out=str(tmp_path))
    script = [sys.executable, str(TEMPLATES / "sft" / "train.py")]
    command = [*script, *(word for key, value in options.items() for word in (f"--{key}", value))]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3]
    assert rows[-1]["step"] == 3
    assert rows[-1]["valid_loss"] < rows[0]["loss"]


def test_the_runs_that_exist_already_are_what_their_script_makes(tmp_path: Path):
    here = EXAMPLES / "existing_runs"
    script = tmp_path / "make_runs.py"
    script.write_text((here / "make_runs.py").read_text())
    subprocess.run([sys.executable, str(script)], check=True)
    made = {p.name: p.read_text() for p in (tmp_path / "runs").iterdir()}
    assert made == {p.name: p.read_text() for p in (here / "runs").iterdir()}

"""docs/nanogpt.md: its patch and its plan make a pilot of a trainer of nanoGPT's shape."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mars_optim.experiment.executors import probe
from mars_optim.experiment.executors.runnable import RunnableCommand
from mars_optim.experiment.external.command_run import OFTEN, Command
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.plan_file import load_plan
from mars_optim.experiment.records import Outcome, RunWriter
from tests.support.command_runs import spec_of
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "nanogpt.md"
TRAINER = Path(__file__).parent / "nanogpt" / "train.py.txt"
CONFIGURATOR = """
import ast, sys
for word in sys.argv[1:]:
    if "=" not in word:
        exec(open(word).read())
        continue
    key, value = word.removeprefix("--").split("=")
    try:
        value = ast.literal_eval(value)
    except (SyntaxError, ValueError):
        pass
    assert type(globals()[key]) is type(value), key
    globals()[key] = value
"""
CONFIG = """
eval_interval = 250
learning_rate = 1e-3
max_iters = lr_decay_iters = 5000
min_lr = 1e-4
beta2 = 0.99
warmup_iters = 100
"""
pytestmark = pytest.mark.skipif(
    not PAGE.exists(), reason="docs are not in this copy of the package"
)


def block(language: str) -> str:
    text = PAGE.read_text(encoding="utf-8")
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder as nanoGPT's, with the page's patch and plan."""
    folder = tmp_path / "clone"
    (folder / "config").mkdir(parents=True)
    (folder / "config" / "train_shakespeare_char.py").write_text(CONFIG)
    (folder / "configurator.py").write_text(CONFIGURATOR)
    (folder / "train.py").write_text(TRAINER.read_text())
    (folder / "mars.patch").write_text(block("diff"))
    (folder / "plan.toml").write_text(block("toml"))
    outside = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path)}
    subprocess.run(["git", "apply", "mars.patch"], cwd=folder, env=outside, check=True)
    return folder


def plan_of(clone: Path, *, pause: float = 0.0) -> Plan:
    plan = load_plan(clone / "plan.toml")
    command = f"{plan.task.command} --pause={pause}"
    return replace(plan, task=replace(plan.task, command=command))


def outcome_of(clone: Path, plan: Plan, arm: str, steps: int) -> tuple[Outcome, bool]:
    spec = replace(spec_of(plan.task, arm=arm, steps=steps), arm=plan.arm[arm])
    writer = RunWriter(clone / "runs", spec, {})
    try:
        return Command(plan.task, clone, 1).run(spec, writer, poll=OFTEN)
    finally:
        writer.close()


def test_the_patch_has_as_many_lines_as_the_page_says():
    changed = re.findall(r"^[+-](?![+-])", block("diff"), re.MULTILINE)
    assert f"A patch of {len(changed)} lines" in PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("steps", [10, 33])
def test_runs_of_any_length_end_with_a_result_at_the_last_step(clone: Path, steps: int):
    plan = plan_of(clone)
    losses = [outcome_of(clone, plan, arm, steps)[0].final_loss for arm in plan.arms]
    assert len(set(losses)) == len(plan.arms)
    assert None not in losses
    assert not list(clone.rglob("ckpt.pt"))


@pytest.mark.slow
def test_step_time_from_rows_excludes_start_and_evaluations(clone: Path):
    plan = plan_of(clone, pause=0.02)
    begun = time.monotonic()
    outcome, timed = outcome_of(clone, plan, "adamw", 40)
    whole = time.monotonic() - begun
    assert timed
    assert outcome.seconds < 0.6 * whole  # start and two evaluations last for 200 steps and more
    assert outcome.seconds > 40 * 0.02


@pytest.mark.slow
def test_probe_tells_steps_from_start_without_a_seconds_column(
    clone: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(probe, "COMMAND_ROUNDS", 2)
    plan = plan_of(clone, pause=0.02)
    found = RunnableCommand(plan, clone / "out", 1).probe()
    for row in found.values():
        assert 0.02 < row["seconds"] < 0.2  # 0.02 and what a busy machine adds, not the start
        assert row["outside"] > 4.0


@pytest.mark.slow
def test_the_pilot_of_the_page_ends_with_a_verdict(clone: Path):
    out = clone / "my-pilot"
    command = [sys.executable, "-m", "mars_optim", "pilot", "--plan", str(clone / "plan.toml")]
    small = {
        "task.command": json.dumps(plan_of(clone).task.command),
        "training.steps": "40",
        "tuning.trials": "1",
        "tuning.max_trials": "1",
        "comparison.seeds": "[1, 2]",
        "comparison.ladder": "[0.5, 2.0]",
    }
    sets = [p for k, v in small.items() for p in ("--set", f"{k}={v}")]
    done = subprocess.run(
        [*command, "--out", str(out), *sets], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    verdict = json.loads((out / "verdict.json").read_text())
    assert verdict["tokens_per_run"] == 40 * 768
    assert set(verdict["arms"]) == {"adamw", "nadamw-auto"}

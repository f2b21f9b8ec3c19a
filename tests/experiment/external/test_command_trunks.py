"""Commands that go on from a state of another run: what they are handed, and what is seen to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.external.command_run import Command
from mars_optim.experiment.plan import Arm, RunSpec
from mars_optim.experiment.plan.plan_file import make_plan
from mars_optim.experiment.plan.task import CommandPlan
from mars_optim.experiment.plan.training import TrainingPlan
from mars_optim.experiment.records import Run, RunWriter, read_run
from mars_optim.experiment.records.run import forget_branch_point

TRAINER = """
import argparse, json, pathlib
p = argparse.ArgumentParser()
for name in "optimizer lr seed steps out init decay save fault".split():
    p.add_argument("--" + name, default="")
a = p.parse_args()
out, steps, decay = pathlib.Path(a.out), int(a.steps), int(a.decay)
first, total = 0, 0.0
if a.init:
    first, total = json.loads(pathlib.Path(a.init).read_text())
save = {int(s) for s in a.save.split(",") if s}
with open(out / "metrics.jsonl", "w") as file:
    for step in range(first + 1, steps + 1):
        share = (steps - step + 1) / decay if decay and step > steps - decay else 1.0
        total += share * float(a.lr)
        shown = step - first if a.fault == "tokens" else step
        loss = float("nan") if a.fault == "nan" and step >= 18 else 9.0 - total
        row = dict(step=step, loss=loss, tokens=10 * shown, seconds=0.5 * (step - first))
        file.write(json.dumps(row) + "\\n")
        if step in save and a.fault != "save":
            (out / f"step-{step}").write_text(json.dumps([step, total]))
    file.write(json.dumps(dict(step=steps, valid_loss=8.0 - total)) + "\\n")
"""
COMMAND = (
    "{python} trainer.py --optimizer {optimizer} --lr {lr} --seed {seed} --steps {steps} "
    "--out {run_dir}"
)
STATES = " --init={init_from} --decay={decay_steps} --save={save_steps}"


def spec_of(folder: Path, steps: int, extra: str = "") -> RunSpec:
    (folder / "trainer.py").write_text(TRAINER)
    return RunSpec(
        purpose="compare",
        arm_name="ours",
        arm=Arm(optimizer="external", lr=0.01),
        lr=0.01,
        seed=1,
        steps=steps,
        task=CommandPlan(command=COMMAND + STATES + extra, folder=str(folder)),
        training=TrainingPlan(steps=20, decay="wsd", trunk=True),
        data="",
    )


def trunk_of(spec: RunSpec) -> RunSpec:
    return replace(spec, steps=24, branches=(8, 16, 24), purpose="trunk")


def branch(spec: RunSpec) -> RunSpec:
    return replace(spec, trunk=trunk_of(spec).run_id)


def run(out: Path, spec: RunSpec) -> Run:
    assert isinstance(spec.task, CommandPlan)
    writer = RunWriter(out / "runs", spec, {})
    try:
        writer.finish(Command(spec.task, out, 1).run(spec, writer)[0])
    finally:
        writer.close()
    return read_run(writer.path)


@pytest.mark.slow
def test_a_commands_branches_are_its_undisturbed_runs(tmp_path: Path):
    trunk = run(tmp_path, trunk_of(spec_of(tmp_path, 20)))
    assert sorted(p.name for p in (trunk.path / "job").glob("step-*")) == [
        "step-16",
        "step-24",
        "step-8",
    ]
    for steps in (10, 20, 30):
        spec = spec_of(tmp_path, steps)
        whole, branched = run(tmp_path, spec), run(tmp_path, branch(spec))
        assert branched.final_loss == whole.final_loss
        assert branched.outcome is not None
        assert branched.outcome.tokens == 10 * steps
        assert branched.outcome.seconds == 0.5 * branch(spec).work, "its own, not its trunk's"
        shown = [row["step"] for row in branched.rows if "loss" in row]
        assert shown == sorted(set(shown))
        assert shown[-1] == steps
        forget_branch_point(tmp_path / "runs", branch(spec))
    assert not list((trunk.path / "job").glob("step-*"))
    assert (trunk.path / "job" / "metrics.jsonl").exists(), "what else it wrote stays"


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("save", "left no step-8 in {run_dir}: at each step of {save_steps} it must save"),
        ("tokens", "counts"),
    ],
)
def test_what_a_command_leaves_out_is_told_in_a_line(fault: str, message: str, tmp_path: Path):
    spec = spec_of(tmp_path, 20, f" --fault={fault}")

    def both() -> None:
        run(tmp_path, trunk_of(spec))
        run(tmp_path, branch(spec))

    with pytest.raises(UserError) as error:
        both()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_branches_after_a_commands_divergence_diverge_unrun(tmp_path: Path):
    spec = spec_of(tmp_path, 30, " --fault=nan")
    trunk = run(tmp_path, trunk_of(spec))
    assert trunk.outcome is not None
    assert trunk.outcome.status == "diverged"
    lost = run(tmp_path, branch(spec))
    assert lost.outcome is not None
    assert (lost.outcome.status, lost.outcome.seconds) == ("diverged", 0.0)
    assert not (lost.path / "job").exists()


def plan_with(command: str, **training: Any) -> None:
    make_plan(
        {
            "arms": ["adamw", "mars-adamw"],
            "task": {"kind": "command", "command": command},
            "training": training,
            "arm": {"adamw": {"lr": 1e-3}, "mars-adamw": {"lr": 3e-3}},
        }
    )


TRUNK: dict[str, Any] = {"decay": "wsd", "trunk": True}
REFUSED = {
    "no placeholders": (COMMAND, TRUNK, "lacks {init_from}, {decay_steps}, {save_steps}, which"),
    "one missing": (COMMAND + STATES.replace("{save_steps}", ""), TRUNK, "lacks {save_steps}"),
    "no trunks": (COMMAND + STATES, {}, "which works only with training.trunk = true"),
    "a warm-up": (
        COMMAND + STATES,
        {**TRUNK, "warmup": 0.2},
        "training.warmup is not passed to the command",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_command_has_the_placeholders_where_there_are_trunks(name: str):
    command, training, message = REFUSED[name]
    with pytest.raises(UserError) as error:
        plan_with(command, **training)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    plan_with(COMMAND + STATES, **TRUNK, decay_share=0.3)


def test_the_example_is_a_plan_with_trunks():
    from mars_optim.experiment.plan.plan_file import load_plan
    from tests.support.paths import ROOT

    plan = load_plan(ROOT / "examples" / "command_with_trunk" / "plan.toml")
    assert plan.training.trunk
    assert json.dumps(plan.rungs("mars-adamw")) == "[1.0, 0.5, 0.75, 1.5]"

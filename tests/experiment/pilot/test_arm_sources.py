"""The code of a class that an arm names: another one is another run, and is told in a line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.pilot.agenda import agenda
from mars_optim.experiment.pilot.arm_lines import check_lines, resolve_arms, source_changes
from mars_optim.experiment.pilot.run import adopt_plan, finished_runs, plan_changes
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.plan_file import load_plan, make_plan, plan_of
from mars_optim.experiment.records import RunWriter
from mars_optim.experiment.records.checks import ArmCheck
from tests.support.pretend import finish, small_plan

CODE = "import torch\n\nclass Mine(torch.optim.SGD):\n    pass\n"
CHANGED = CODE + "\n# another thought\n"


def plan_in(folder: Path, code: str = CODE) -> Plan:
    (folder / "mine_for_tests.py").write_text(code)
    arm = {"optimizer": "mine_for_tests.py:Mine", "lr": 0.1}
    arms = {"arms": ["adamw", "mine"], "comparison": {"candidate": "mine"}, "arm": {"mine": arm}}
    return make_plan(arms, folder=folder)


def started(folder: Path, out: Path) -> Plan:
    """A pilot of which the first runs of both arms have ended."""
    plan = resolve_arms(plan_in(folder))
    adopt_plan(plan, out, plan_changes(plan, out))
    for spec in agenda(plan, "data", []).ready:
        if spec.arm_name in ("mine", "adamw"):
            writer = RunWriter(out / "runs", spec, {})
            outcome = finish(spec, 1.0).outcome
            assert outcome is not None
            writer.finish(outcome)
    return plan


def test_a_plan_of_our_arms_is_left_alone():
    plan = small_plan()
    assert resolve_arms(plan) is plan


def test_the_source_is_module_package_version_and_hash(tmp_path: Path):
    source = resolve_arms(plan_in(tmp_path)).arm["mine"].source
    assert source.startswith("mine_for_tests, sha256 ")
    assert len(source.rpartition(" ")[2]) == 64
    arm = {"mine": {"optimizer": "torch.optim:SGD", "lr": 0.1}}
    arms = {"arms": ["adamw", "mine"], "comparison": {"candidate": "mine"}, "arm": arm}
    assert resolve_arms(make_plan(arms)).arm["mine"].source.startswith("torch.optim.sgd, torch 2.")


def test_an_unchanged_source_says_nothing(tmp_path: Path):
    out = tmp_path / "out"
    started(tmp_path, out)
    given = plan_in(tmp_path)
    plan = resolve_arms(given)
    assert plan_changes(plan, out) == []
    assert source_changes(given, plan, out) == []


@pytest.mark.parametrize("from_its_folder", [True, False])
def test_a_changed_source_is_told_and_its_runs_are_made_again(
    tmp_path: Path, from_its_folder: bool
):
    out = tmp_path / "out"
    old = started(tmp_path, out)
    given = plan_in(tmp_path, CHANGED)
    if from_its_folder:
        given = load_plan(plan_of(out))
    plan = resolve_arms(given)
    (line,) = source_changes(given, plan, out)
    assert "arm.mine: the code of mine_for_tests.py:Mine has changed" in line
    assert "finished runs are repeated" in line
    assert "\n" not in line
    changes = plan_changes(plan, out)
    assert [c.partition(":")[0] for c in changes] == ["arm.mine.source"]
    adopt_plan(plan, out, changes)
    assert "arm.mine.source" in (out / "amendments.jsonl").read_text()
    assert source_changes(plan, plan, out) == []  # told once
    runs = [spec for spec in agenda(old, "data", []).ready if spec.arm_name == "mine"]
    assert runs
    assert not any(plan.covers(spec) for spec in runs)
    assert old.covers(runs[0])
    assert {run.spec.arm_name for run in finished_runs(old, out).values()} == {"adamw", "mine"}
    assert {run.spec.arm_name for run in finished_runs(plan, out).values()} == {"adamw"}


def test_a_plan_from_elsewhere_tells_that_its_source_differs(tmp_path: Path):
    plan = resolve_arms(plan_in(tmp_path))
    theirs = replace(plan.arm["mine"], source="mine, sha256 0123456789abcdef")
    given = replace(plan, arm={**plan.arm, "mine": theirs})
    (line,) = source_changes(given, plan, tmp_path / "out")
    assert "sha256 01234567 before" in line
    assert "made again" not in line


def test_another_key_of_the_arm_is_still_refused(tmp_path: Path):
    out = tmp_path / "out"
    plan = started(tmp_path, out)
    changed = replace(plan.arm["mine"], own_schedule=True, source="x")
    with pytest.raises(UserError, match=r"arm\.mine\.own_schedule"):
        plan_changes(replace(plan, arm={**plan.arm, "mine": changed}), out)


def test_what_was_found_is_a_line_an_arm():
    source = "soap, pytorch_optimizer 4.1.0, sha256 0123456789"
    checks = {
        "soap": ArmCheck("a:SOAP", source, (("x", "It does x."), ("y", "It does [y].")), ""),
        "mine": ArmCheck("mine.py:Mine", "mine, sha256 0123456789", (), ""),
    }
    assert check_lines(checks) == [
        "arm.soap: a:SOAP (pytorch_optimizer 4.1.0, sha256 01234567), checked: It does x. It does "
        "\\[y].",
        "arm.mine: mine.py:Mine (mine, sha256 01234567), checked: nothing was found.",
    ]

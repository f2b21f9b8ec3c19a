"""Arms that name a class are tried before the first run: what blocks, and what is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mars_optim.errors import UserError
from mars_optim.experiment.executors import arm_checks
from mars_optim.experiment.executors.arm_checks import check_arms
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.plan_file import make_plan
from mars_optim.experiment.records.checks import CHECKS, read_checks
from mars_optim.experiment.training import with_sources
from tests.support.executed import Words

OWN = "tests.support.own_optimizers:"
FLAWED = "tests.support.flawed_optimizers:"


class Kernels(Words):
    """With a convolution, and a 0-d parameter."""

    def build_model(self, seed: int) -> nn.Module:
        model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Linear(3, 3), nn.Linear(3, 3))
        model.register_parameter("scale", nn.Parameter(torch.ones(())))
        return model


def plan_of(optimizer: str, lr: float = 0.05, **keys: Any) -> Plan:
    name = optimizer if ":" in optimizer else OWN + optimizer
    arm = {"optimizer": name, "lr": lr, **keys}
    arms = {"arms": ["adamw", "any"], "comparison": {"candidate": "any"}, "arm": {"any": arm}}
    return make_plan(arms)


def test_what_is_found_is_returned_and_kept(tmp_path: Path):
    plan = with_sources(plan_of("Average"))
    found = check_arms(plan, Words(), tmp_path / "pilot")
    assert read_checks(tmp_path / "pilot", {"any"}) == found
    check = found["any"]
    assert check.source == plan.arm["any"].source
    assert [name for name, _ in check.found][:1] == ["has no weight decay"]
    assert "has train() and eval()" in dict(check.found)


def test_what_we_see_to_is_not_told(tmp_path: Path):
    """train() and eval() with an own schedule; and evaluation that moves the weights."""
    found = check_arms(plan_of("Average", own_schedule=True), Words(), tmp_path)
    assert not {"has train() and eval()", "evaluation moves the weights"} & set(
        dict(found["any"].found)
    )


def test_an_unchanged_arm_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plan = plan_of("Own")
    before = check_arms(plan, Words(), tmp_path)
    tried: list[str] = []
    monkeypatch.setattr(arm_checks, "_check", lambda name, arm: tried.append(name) or before[name])
    assert check_arms(plan, Words(), tmp_path) == before
    assert not tried
    check_arms(plan_of("Own", lr=0.06), Words(), tmp_path)
    assert tried == ["any"]


@pytest.mark.parametrize("damage", ["", "[1]", '{"any": {"found": 3}}'])
def test_a_damaged_file_of_checks_is_made_again(tmp_path: Path, damage: str):
    (tmp_path / CHECKS).write_text(damage)
    check_arms(plan_of("Own"), Words(), tmp_path)
    assert list(json.loads((tmp_path / CHECKS).read_text())) == ["any"]


def test_what_is_known_of_another_arm_is_kept(tmp_path: Path):
    plan = plan_of("Own")
    others = {"other": plan.arm["any"], **plan.arm}
    both = replace(plan, arms=("adamw", "any", "other"), arm=others)
    check_arms(both, Words(), tmp_path)
    check_arms(
        replace(both, arm={**others, "any": replace(others["any"], lr=0.06)}),
        Words(),
        tmp_path,
        "any",
    )
    assert set(read_checks(tmp_path, both.arm)) == {"any", "other"}


def test_only_the_arm_that_is_run_is_tried(tmp_path: Path):
    assert check_arms(plan_of(FLAWED + "Climbs"), Words(), tmp_path, only="adamw") == {}
    assert not (tmp_path / CHECKS).exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "keys", "words"),
    [
        (FLAWED + "MatricesOnly", {}, ["refuses a vector", "parameters = 'matrices'"]),
        ("torch.optim:Muon", {}, ["refuses a vector", "parameters = 'matrices'"]),
        ("torch.optim:SparseAdam", {}, ["refuses a matrix", "dense gradients", "leave the arm"]),
        ("torch.optim:Rprop", {}, ["lr does not reach the step", "leave the arm out"]),
        (FLAWED + "Climbs", {}, ["does not lower a quadratic", "a smaller arm.any.lr"]),
        ("torch.optim:SGD", {"lr": 1e3}, ["does not lower a quadratic", "a smaller arm.any.lr"]),
        ("torch.optim:SGD", {"options": {"momentum": -1}}, ["cannot be made", "momentum"]),
        ("torch.optim:SGD", {"options": {"momentun": 0.9}}, ["did you mean 'momentum'?"]),
        ("torch.optim:LBFGS", {}, ["cannot be made", "set arm.any.parameters = 'all'"]),
        (FLAWED + "NoRate", {}, ["NoRate takes no lr"]),
        ("Task", {}, ["has no class 'Task'"]),
        ("no.such.module:SOAP", {}, ["no.such.module cannot be imported"]),
        (
            FLAWED + "NeedsGraph",
            {},
            ["needs second derivatives", "leave the arm out"],
        ),
    ],
)
def test_what_blocks_is_one_line_with_the_way_out(
    tmp_path: Path, optimizer: str, keys: dict[str, Any], words: list[str]
):
    with pytest.raises(UserError) as caught:
        check_arms(with_sources(plan_of(optimizer, **keys)), Words(), tmp_path)
    message = str(caught.value)
    assert message.startswith("arm.any")
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert not (tmp_path / CHECKS).exists()


def test_matrices_alone_are_a_way_out(tmp_path: Path):
    plan = plan_of("torch.optim:Muon", lr=0.02, parameters="matrices")
    assert list(check_arms(plan, Words(), tmp_path)) == ["any"]


def test_kernels_are_asked_for_only_where_the_model_has_some(tmp_path: Path):
    plan = plan_of("NoKernels")
    assert "refuses a 4-D kernel" in dict(check_arms(plan, Words(), tmp_path)["any"].found)
    with pytest.raises(UserError, match=r"arm\.any: .* refuses a 4-D kernel.*'matrices'"):
        check_arms(plan, Kernels(), tmp_path)
    arm = replace(plan.arm["any"], parameters="matrices")
    check_arms(replace(plan, arm={**plan.arm, "any": arm}), Kernels(), tmp_path)

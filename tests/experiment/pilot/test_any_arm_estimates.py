"""Estimate of a run under a class that its arm names, before its first step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mars_optim.cli.train_messages import before
from mars_optim.errors import UserError
from mars_optim.experiment.noise_study import NoiseStudy, study_noise
from mars_optim.experiment.pilot.run_estimate import check_choice, look_ahead, single_spec
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.plan_file import make_plan
from tests.support.executed import Words


def plan_of(optimizer: str = "torch.optim:SGD", **keys: Any) -> Plan:
    arm = {"optimizer": optimizer, "lr": 0.5, "options": {"momentum": 0.9}, **keys}
    return make_plan(
        {"arms": ["adamw", "any"], "comparison": {"candidate": "any"}, "arm": {"any": arm}}
    )


def told(plan: Plan, tmp_path: Any) -> str:
    spec = single_spec(plan, "words", arm="any", lr=None, seed=1)
    outlook = look_ahead(spec, Words(), tmp_path)
    return "\n".join(before(plan, spec, outlook, tmp_path))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("all", "all parameters in one group: torch.optim:SGD, lr 0.5, momentum 0.9"),
        ("groups", "in groups, embeddings and vectors without decay: torch.optim:SGD, lr 0.5"),
        ("matrices", "matrices, and AdamW for the others: torch.optim:SGD, lr 0.5"),
    ],
)
def test_a_line_says_what_the_class_is_given(tmp_path: Any, parameters: str, words: str):
    assert words in told(plan_of(parameters=parameters), tmp_path)


def test_an_own_schedule_is_said_in_place_of_the_plans(tmp_path: Any):
    assert "schedule: linear" in told(plan_of(), tmp_path)
    assert "schedule: the optimizer's own, at a constant lr" in told(
        plan_of(own_schedule=True), tmp_path
    )


def test_several_processes_are_refused_for_its_arm_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"arm\.any\.optimizer .* one process, and 2 were started"):
        check_choice(plan_of(), arm="any", lr=None, seed=1)
    check_choice(plan_of(), arm="adamw", lr=None, seed=1)


def test_the_noise_is_not_studied_under_a_closure():
    plan = plan_of("torch.optim:LBFGS", options={})
    comparison = replace(plan.comparison, baseline="any", candidate="mars-adamw")
    plan = replace(
        plan, arms=("any", "mars-adamw"), comparison=comparison, arm={"any": plan.arm["any"]}
    )
    with pytest.raises(UserError, match=r"arm\.any\.optimizer .* computes its gradients itself"):
        study_noise(plan, Words(), NoiseStudy())

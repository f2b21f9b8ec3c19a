"""Extras of a plan: ablations, sizes, sensitivity; old folders stay readable."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.arms import ABLATIONS, ARMS, ablation_arms, ablation_name
from mars_optim.experiment.plan.comparison import ComparisonPlan
from mars_optim.experiment.plan.plan import SensitivityPlan, SizePlan, TrainingPlan
from mars_optim.experiment.plan.plan_file import make_plan, plan_toml
from mars_optim.experiment.plan.task import GptPlan

ABLATED = tuple(ablation_name("mars-adamw", kind) for kind in ABLATIONS)


def read_back(plan: Plan) -> Plan:
    import tomllib

    return make_plan(tomllib.loads(plan_toml(plan)))


@pytest.mark.parametrize(
    ("arm", "run_id"),
    [
        ("adamw", "adamw-lr0.003-seed1-steps100-59692c85"),
        ("mars-adamw", "mars-adamw-lr0.003-seed1-steps100-36edbf0f"),
        ("muon", "muon-lr0.003-seed1-steps100-8ebd614f"),
    ],
)
def test_runs_made_before_these_options_keep_their_names(arm: str, run_id: str):
    spec = RunSpec(
        purpose="compare",
        arm_name=arm,
        arm=ARMS[arm],
        lr=3e-3,
        seed=1,
        steps=100,
        task=GptPlan(),
        training=TrainingPlan(),
        data="d" * 64,
    )
    assert spec.run_id == run_id


def test_the_ablations_take_one_thing_away_each():
    mars, adamw = ARMS["mars-adamw"], ARMS["adamw"]
    assert ARMS[ABLATED[0]] == replace(mars, gamma=0.0, clip=0.0)
    assert ARMS[ABLATED[1]] == replace(mars, clip=0.0)
    assert ARMS[ABLATED[2]] == replace(mars, gamma=0.0)
    other = ARMS[ABLATED[3]]
    assert other.betas == adamw.betas
    strengths = [a.gamma * a.betas[0] / (1 - a.betas[0]) for a in (mars, other)]
    assert strengths[0] == pytest.approx(strengths[1])
    assert replace(other, betas=mars.betas, gamma=mars.gamma) == mars


def test_one_switch_adds_the_ablations_once_and_for_all():
    plan = make_plan({}, ("comparison.ablations=true",))
    assert plan.arms == ("adamw", "nadamw", "mars-adamw", *ABLATED)
    assert read_back(plan) == plan
    assert replace(plan) == plan
    assert make_plan({}).arms == ("adamw", "nadamw", "mars-adamw")


def test_the_ablations_are_the_candidates_own():
    arms = {"mars-adamw": replace(ARMS["mars-adamw"], gamma=0.05, clip=0.5)}
    plan = Plan(arm=arms, comparison=ComparisonPlan(ablations=True))
    assert plan.arm["mars-adamw-no-clip"] == replace(arms["mars-adamw"], clip=0.0)
    other = Plan(
        arms=("muon", "mars-m"),
        comparison=ComparisonPlan(baseline="muon", candidate="mars-m", ablations=True),
    )
    # Muon has MARS-M's betas, so these need no arm
    assert other.arms[2:] == ("mars-m-plain", "mars-m-no-clip", "mars-m-clip-only")


def test_an_ablation_by_name_needs_no_switch():
    plan = make_plan({}, ('arms=["adamw", "mars-adamw", "mars-adamw-plain"]',))
    assert plan.arm["mars-adamw-plain"].gamma == 0.0


def test_a_candidate_with_nothing_to_take_away_is_refused():
    with pytest.raises(UserError, match=r"comparison\.ablations: adamw has neither gamma nor clip"):
        ablation_arms("adamw", ARMS["adamw"], ARMS["nadamw"])


def test_sizes_take_what_they_do_not_say_from_the_plan():
    plan = Plan(
        training=TrainingPlan(steps=400),
        scale={"wide": SizePlan(width=128, heads=4), "long": SizePlan(steps=800)},
    )
    own, wide, long = plan.sizes()
    assert (own.name, own.task, own.training, own.arms) == (
        "main",
        plan.task,
        plan.training,
        plan.arms,
    )
    assert wide.task == replace(plan.task, width=128, heads=4)
    assert wide.training == plan.training
    assert (long.task, long.training.steps, long.steps(0.5)) == (plan.task, 800, 400)
    assert read_back(plan) == plan


def test_other_sizes_train_baseline_control_and_candidate_only():
    plan = Plan(arms=("adamw", "lion", "nadamw", "mars-adamw"), scale={"wide": SizePlan(width=128)})
    assert [size.arms for size in plan.sizes()] == [
        ("adamw", "lion", "nadamw", "mars-adamw"),
        ("adamw", "nadamw", "mars-adamw"),
    ]
    without = replace(plan, arms=("adamw", "mars-adamw"), arm={})
    assert without.sizes()[1].arms == ("adamw", "mars-adamw")


MISTAKES = [
    (dict(main=SizePlan(width=128)), "plan's own size"),
    (dict(same=SizePlan(width=64)), "scale.same is the same as main"),
    (dict(a=SizePlan(width=32), b=SizePlan(width=32)), "scale.b is the same as a"),
    (dict(odd=SizePlan(width=65)), "scale.odd.width = 65 must be a multiple"),
    (dict(short=SizePlan(steps=5)), "scale.short.steps = 5 must be at least 10"),
    (dict(short=SizePlan(steps=10)), "must give different numbers of steps"),
    ({"a b": SizePlan(width=32)}, "'a b'"),
]


@pytest.mark.parametrize(("scale", "words"), MISTAKES, ids=[m[1] for m in MISTAKES])
def test_a_size_that_makes_no_sense_is_refused_by_name(scale: dict[str, Any], words: str):
    ladder = (0.5, 0.51, 2.0)
    with pytest.raises(UserError) as caught:
        Plan(scale=scale, comparison=ComparisonPlan(ladder=ladder))
    assert words in str(caught.value)


def test_plan_covers_only_runs_of_its_sizes_and_gammas():
    plan = Plan(
        arms=("adamw", "lion", "mars-adamw"),
        sensitivity=SensitivityPlan(gammas=(0.05,)),
        scale={"wide": SizePlan(width=128)},
    )
    own, wide = plan.sizes()
    spec = RunSpec(
        purpose="tune",
        arm_name="mars-adamw",
        arm=plan.arm["mars-adamw"],
        lr=1e-3,
        seed=0,
        steps=10,
        task=own.task,
        training=own.training,
        data="data",
    )
    assert plan.size_of(spec) == own
    assert plan.size_of(replace(spec, task=wide.task)) == wide
    lion = replace(spec, arm_name="lion", arm=plan.arm["lion"])
    assert plan.covers(lion)
    assert not plan.covers(replace(lion, task=wide.task))
    other = replace(spec, arm=replace(spec.arm, gamma=0.05))
    assert not plan.covers(other)
    assert plan.covers(replace(other, purpose="sensitivity"))
    assert not plan.covers(replace(spec, purpose="sensitivity", arm=replace(spec.arm, gamma=0.1)))

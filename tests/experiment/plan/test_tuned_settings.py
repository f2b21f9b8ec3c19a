"""Settings that can be tuned, their ranges, and the arm that a point makes."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.errors import UserError
from mars_optim.experiment.plan.arms import ARMS, Arm
from mars_optim.experiment.plan.plan_file import built_in_plan, make_plan, overrides, plan_toml
from mars_optim.experiment.plan.run_spec import RunSpec
from mars_optim.experiment.plan.tuning import (
    SPANS,
    factor_at,
    few_trials,
    place_of,
    point,
    same_but_tuned,
    value_at,
)

MANY = ["lr", "weight_decay", "lr_1d", "beta1"]

MISTAKES: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    (dict(over=["lr", "weigth_decay"]), ("unknown 'weigth_decay'", "did you mean 'weight_decay'")),
    (dict(over=["lr", "xyzzy"]), ("unknown 'xyzzy'", "known: lr, weight_decay")),
    (dict(over=["weight_decay"]), ("must hold 'lr'",)),
    (dict(over=[]), ("must hold 'lr'",)),
    (dict(over=["lr", "lr", "beta1"]), ("names a setting twice",)),
    (dict(over=["lr", "gamma"]), ("adamw does not have", "tuning.arm.adamw.gamma = [1, 1]")),
    (dict(over=MANY, more_seeds=[9]), ("more_seeds", "leave it out")),
    (dict(over=MANY, trials=4), ("trials = 4 must be more than the 4 names", "32")),
    (dict(over=MANY, sampler="tpee"), ("did you mean 'tpe'?",)),
    (dict(sampler="tpe"), ("tuning.sampler", "set tuning.over")),
    (dict(range={"lr": [0.1, 10.0]}), ("tuning.range", "set tuning.over")),
    (dict(over=MANY, range={"beta2": [0.5, 2]}), ("tuning.range.beta2", "did you mean 'beta1'?")),
    (dict(over=MANY, range={"lr": [4, 1]}), ("[4.0, 1.0] must be a lower and a higher",)),
    (dict(over=MANY, range={"lr": [0, 1]}), ("tuning.range.lr[0] = 0.0 must be above 0",)),
    (dict(over=MANY, range={"lr": [1, 1e12]}), ("lr = ", "1e+06", "narrower")),
    (dict(over=MANY, range={"beta1": [1, 40]}), ("betas[0] = -", "narrower")),
    (dict(over=MANY, arm={"adawm": {}}), ("tuning.arm.adawm", "did you mean 'adamw'?")),
    (dict(over=MANY, arm={"adamw": {"wd": [1, 2]}}), ("tuning.arm.adamw.wd is not among",)),
]


@pytest.mark.parametrize(("tuning", "told"), MISTAKES, ids=map(str, range(len(MISTAKES))))
def test_a_mistake_in_what_is_tuned_is_one_line(tuning: dict[str, Any], told: tuple[str, ...]):
    with pytest.raises(UserError) as error:
        make_plan({"tuning": tuning})
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in told), text


def test_a_range_that_leads_below_min_lr_is_refused():
    plan = {"training": {"min_lr": 5e-4}, "tuning": {"over": MANY, "trials": 9}}
    with pytest.raises(UserError, match=r"lr = 0.000125, which must be above training.min_lr"):
        make_plan(plan)


def test_a_plan_that_tunes_more_is_read_back_equal():
    tuning = dict(over=MANY, trials=40, sampler="tpe", range={"lr": [0.1, 10.0]})
    tuning["arm"] = {"mars-adamw": {"lr": [0.5, 2.0], "beta1": [1.0, 1.0]}}
    plan = make_plan({"tuning": tuning, "comparison": {"lr_exponent": -0.35}})
    assert make_plan(tomllib.loads(plan_toml(plan))) == plan
    assert built_in_plan(tuple(overrides(plan))) == plan
    assert plan.tuning.spans("adamw") == {**{k: SPANS[k] for k in MANY}, "lr": (0.1, 10.0)}
    assert plan.tuning.spans("mars-adamw")["lr"] == (0.5, 2.0)


def test_the_plan_of_the_rate_alone_does_not_speak_of_more():
    written = tomllib.loads(plan_toml(make_plan({})))
    assert set(written["tuning"]) == {"trials", "max_trials", "factor", "seed", "more_seeds"}
    assert "lr_exponent" not in written["comparison"]


def test_few_trials_for_many_names_are_warned_of():
    assert "8 or more" not in few_trials(make_plan({}).tuning)
    few = make_plan({"tuning": {"over": MANY, "trials": 31}}).tuning
    assert "32 or more" in few_trials(few)
    assert not few_trials(make_plan({"tuning": {"over": MANY, "trials": 32}}).tuning)


@pytest.mark.parametrize("name", ["adamw", "nadamw", "mars-adamw", "mars-m"])
def test_a_factor_of_one_is_the_arms_own_default(name: str):
    arm = ARMS[name]
    assert point(arm, dict.fromkeys(MANY, 1.0)).arm == arm
    assert point(arm, dict.fromkeys(MANY, 1.0)).lr == arm.lr


@given(factors=st.fixed_dictionaries({name: st.floats(0.3, 3.0) for name in MANY}))
def test_a_point_has_each_value_at_its_factor(factors: dict[str, float]):
    arm = ARMS["mars-adamw"]
    found = point(arm, factors)
    assert found.lr == pytest.approx(arm.lr * factors["lr"], rel=1e-3)
    assert found.arm.lr == arm.lr  # where tuning starts; the run has its own
    assert found.arm.weight_decay == pytest.approx(0.01 * factors["weight_decay"], rel=1e-3)
    assert value_at(found, "lr_1d") == pytest.approx(0.003 * factors["lr_1d"], rel=1e-3)
    assert 1 - found.arm.betas[0] == pytest.approx(0.05 * factors["beta1"], rel=1e-3)
    assert found.arm.betas[1] == arm.betas[1]
    assert value_at(found, "beta1") == found.arm.betas[0]
    assert same_but_tuned(arm, found.arm, MANY)


@pytest.mark.parametrize(
    "other",
    [dict(gamma=0.05), dict(betas=(0.9, 0.9)), dict(weight_decay_1d=0.1), dict(clip=None)],
    ids=["gamma", "beta2", "weight_decay_1d", "clip"],
)
def test_another_setting_is_no_trial(other: dict[str, Any]):
    arm = ARMS["mars-adamw"]
    assert not same_but_tuned(arm, Arm(**other), MANY)


def test_vectors_rate_as_a_ratio_is_tuned_from_its_value():
    arm = Arm(lr=0.01, lr_1d_ratio=0.2)
    found = point(arm, {"lr": 2.0, "lr_1d": 0.5})
    assert value_at(found, "lr_1d") == pytest.approx(0.001)
    assert (found.arm.lr_1d, found.arm.lr_1d_ratio) == (None, 0.05)
    assert same_but_tuned(arm, found.arm, ["lr", "lr_1d"])


def test_a_tuned_setting_is_another_run():
    plan = make_plan({"tuning": {"over": MANY, "trials": 9}})
    names = set()
    for factor in (1.0, 2.0):
        at = point(plan.arm["adamw"], {"weight_decay": factor})
        spec = RunSpec(
            purpose="tune", arm_name="adamw", arm=at.arm, lr=at.lr, seed=0, steps=1200,
            task=plan.task, training=plan.training, data="d",
        )  # fmt: skip
        assert plan.covers(spec)
        assert not make_plan({}).covers(spec) or factor == 1.0
        names.add(spec.run_id)
    assert len(names) == 2


def test_places_in_a_range_are_even_in_the_logarithm():
    assert factor_at((0.125, 8.0), 0.5) == pytest.approx(1.0)
    assert factor_at((0.125, 8.0), 0.0) == pytest.approx(0.125)
    assert place_of((0.125, 8.0), factor_at((0.125, 8.0), 0.3)) == pytest.approx(0.3)
    assert place_of((2.0, 8.0), 1.0) == 0.0

"""Designs whose seeds share one ladder: what the error of that ladder does to their decisions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from mars_optim.experiment.analysis.mean_ladder import ladder_error, mean_ladder
from mars_optim.experiment.pilot.retries import Timing
from mars_optim.experiment.pilot.simulated_verdicts import ladder_errors
from mars_optim.experiment.pilot.worth import Design, Job, Prior, designs
from mars_optim.experiment.plan.comparison import ComparisonPlan
from mars_optim.experiment.plan.cost import CostPlan
from tests.support.pretend import small_plan

PLAN = replace(
    small_plan(arms=("adamw", "mars-adamw"), steps=1000),
    cost=CostPlan(price_per_hour=2.0, planned_hours=5000.0),
)


def with_ladder(ladder: tuple[float, ...], seeds: int) -> ComparisonPlan:
    return ComparisonPlan(seeds=tuple(range(1, 7)), ladder=ladder, ladder_seeds=seeds)


@pytest.mark.parametrize("theta", [-0.2, -0.05, 0.05, 0.2])
def test_the_error_is_the_one_that_the_analysis_finds(theta: float):
    plan = replace(PLAN, comparison=with_ladder((0.5, 1.5), 2))
    noise, tokens = 0.02, {500: 0.5, 1000: 1.0, 1500: 1.5}
    straight = {t: 3.0 - math.log(budget) for t, budget in tokens.items()}  # 1 nat a log token
    pairs = [(3.0, 3.0 - theta)] * 6
    mean = mean_ladder([straight, straight], 1000)
    assert mean is not None
    found = ladder_error(mean, pairs, noise)
    (told,) = ladder_errors(plan, np.array([theta]), noise)
    assert told == pytest.approx(found, rel=0.02)


def test_ladders_of_all_seeds_add_no_error():
    plan = replace(PLAN, comparison=with_ladder((0.5, 1.5), 0))
    assert not ladder_errors(plan, np.linspace(-1.0, 1.0, 9), 0.1).any()


def test_the_error_grows_with_the_ratio_and_is_none_at_equality():
    plan = replace(PLAN, comparison=with_ladder((0.5, 1.5), 2))
    errors = ladder_errors(plan, np.array([0.0, 0.1, 0.2, 0.3]), 0.05)
    assert errors[0] == pytest.approx(0.0, abs=1e-12)
    assert (np.diff(errors) > 0.002).all()


def go(found: list[Design], seeds: int) -> dict[object, float]:
    """The chance of a go by all axes but the ladder's seeds."""
    return {
        (*design.variant.axes[:2], design.variant.plan.ladder, *design.variant.axes[3:]): design.go
        for design in found
        if design.variant.plan.comparison.ladder_seeds == seeds
    }


def test_a_ladder_of_one_seed_decides_less_often():
    job, prior = Job(money=1e4, step_time=1.0, min_saving=0.05), Prior(mean=0.3, sd=0.01)
    timings = {("main", arm): Timing(0.5) for arm in PLAN.arms}
    found = designs(PLAN, job, prior, sd=0.15, rates=0.0, timings=timings, workers=1)
    whole, few = go(found, 0), go(found, 1)
    assert few.keys() == whole.keys()
    assert all(few[key] <= whole[key] + 0.01 for key in whole)
    assert sum(whole[key] - few[key] for key in whole) / len(whole) > 0.02

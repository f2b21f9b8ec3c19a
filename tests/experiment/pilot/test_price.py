"""A pilot takes the time that was announced."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.experiment.pilot.price import between, price, price_line, remaining
from mars_optim.experiment.pilot.retries import Timing
from mars_optim.experiment.plan.cost import CostPlan
from mars_optim.experiment.plan.plan import SensitivityPlan
from mars_optim.experiment.plan.sizes import SizePlan
from mars_optim.experiment.records.trials import AROUND
from tests.support.pretend import Valley, carry_out, small_plan

PLAN = small_plan()
BOTH = replace(
    PLAN,
    scale={"wide": SizePlan(width=128, steps=50)},
    sensitivity=SensitivityPlan(gammas=(0.05,), factors=(0.5, 1.0, 3.0)),
)
TIMINGS = {(size.name, arm): Timing(0.5) for size in BOTH.sizes() for arm in size.arms}


@pytest.mark.slow
@given(
    optimum=st.fixed_dictionaries(dict.fromkeys(PLAN.arms, st.floats(-5, 5))),
    both=st.booleans(),
)
def test_the_pilot_takes_between_the_least_and_the_most(optimum: dict[str, float], both: bool):
    plan = BOTH if both else PLAN
    told, done = price(plan, None, workers=1), carry_out(plan, Valley(plan, optimum))
    assert told.runs[0] <= len(done.runs) <= told.runs[1]
    assert told.steps[0] <= sum(r.spec.steps for r in done.runs) <= told.steps[1]


def test_the_least_and_the_most_are_reached():
    told = price(PLAN, None, workers=1)
    assert len(carry_out(PLAN, Valley(PLAN)).runs) == told.runs[0]
    far = Valley(PLAN, dict.fromkeys(PLAN.arms, 20.0))
    assert len(carry_out(PLAN, far).runs) == told.runs[1]


@pytest.mark.slow
@given(
    optimum=st.fixed_dictionaries(dict.fromkeys(PLAN.arms, st.floats(-5, 5))),
    both=st.booleans(),
    share=st.floats(0, 1),
    more=st.booleans(),
)
def test_what_is_left_of_a_pilot_lies_between_what_is_told(
    optimum: dict[str, float], both: bool, share: float, more: bool
):
    plan = BOTH if both else PLAN
    if more:
        plan = replace(plan, tuning=replace(plan.tuning, more_seeds=(7,)))
    whole = carry_out(plan, Valley(plan, optimum)).runs
    done = whole[: round(share * len(whole))]
    told = remaining(plan, done, None, workers=1)
    assert told.runs[0] <= len(whole) - len(done) <= told.runs[1]
    steps = sum(r.spec.steps for r in whole[len(done) :])
    assert told.steps[0] <= steps <= told.steps[1]


def test_tuning_seed_added_at_the_end_costs_only_its_own_runs():
    done = carry_out(PLAN, Valley(PLAN)).runs
    assert remaining(PLAN, done, None, workers=1).runs == (0, 0)
    more = replace(PLAN, tuning=replace(PLAN.tuning, more_seeds=(7,)))
    assert remaining(more, done, None, workers=1).runs[1] == AROUND * len(PLAN.arms)


def test_hours_are_steps_and_run_overhead_shared_among_workers():
    told = price(PLAN, dict.fromkeys(TIMINGS, Timing(0.5, 10.0)), workers=2)
    assert told.hours is not None
    for end in (0, 1):
        seconds = 0.5 * told.steps[end] + 10.0 * told.runs[end]
        assert told.hours[end] == pytest.approx(seconds / 3600 / 2)


def test_money_is_hours_at_the_price_of_the_pilots_machine():
    plan = replace(PLAN, cost=CostPlan(price_per_hour=3.0, devices=8))
    told = price(plan, TIMINGS, workers=1)
    assert told.hours is not None
    assert told.money == pytest.approx([3 * h for h in told.hours])
    cheap = replace(PLAN, cost=CostPlan(price_per_hour=3.0, pilot_price_per_hour=0.5))
    assert price(cheap, TIMINGS, workers=1).money == pytest.approx([0.5 * h for h in told.hours])
    assert price(PLAN, TIMINGS, workers=1).money is None
    assert price(plan, None, workers=1).money is None


def test_the_price_fits_one_line():
    plan = replace(PLAN, cost=CostPlan(price_per_hour=3600.0))
    assert price_line(price(plan, TIMINGS, workers=1), "円") == (
        "25 to 58 runs, 2,600 to 5,900 steps, about 21.7 to 49.2 minutes, 1,300.00 to 2,950.00 円"
    )
    assert price_line(price(PLAN, None, workers=1), "") == "25 to 58 runs, 2,600 to 5,900 steps"
    assert between(2, 2, 0) == "2"

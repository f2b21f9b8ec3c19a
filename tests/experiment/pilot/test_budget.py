"""Decisions within a budget: weighed by their savings, and never more than it pays for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mars_optim.cli.budget import Choice, as_data, lines, weighed
from mars_optim.errors import UserError
from mars_optim.experiment.pilot.forecast import Forecast, Noise
from mars_optim.experiment.pilot.price import price
from mars_optim.experiment.pilot.retries import Timing
from mars_optim.experiment.pilot.worth import (
    Job,
    Prior,
    affordable,
    budget_of,
    checked_prior,
    designs,
    verdicts,
    without_pilot,
)
from mars_optim.experiment.plan.cost import CostPlan
from mars_optim.experiment.plan.decision import DecisionPlan
from mars_optim.experiment.plan.plan_file import make_plan
from tests.support.pretend import small_plan

PLAN = replace(
    small_plan(arms=("adamw", "mars-adamw"), steps=1000),
    cost=CostPlan(price_per_hour=2.0, planned_hours=5000.0),
)
TIMINGS = {("main", arm): Timing(0.5) for arm in PLAN.arms}
BROAD = Prior(mean=0.0, sd=0.2)


def forecast(noise: float | None = 0.03, rates: float | None = 0.01) -> Forecast:
    row: dict[str, Any] = dict(ratio=1.0)
    known = 0.0 if noise is None else noise
    return Forecast(
        price=price(PLAN, TIMINGS, workers=1),
        left=None,
        probe=dict.fromkeys(PLAN.arms, row),
        parameters=1,
        tokens_per_step=1,
        noise=Noise(sd=noise, low=known, high=known, pairs=4, source="runs", rates=rates),
        seeds=(),
        published=(),
        timings=TIMINGS,
    )


def choice(budget: float, *, hours: float = 5000.0, prior: Prior = BROAD) -> Choice:
    plan = replace(PLAN, cost=replace(PLAN.cost, planned_hours=hours))
    return weighed(plan, forecast(), budget, prior, 1)


def test_no_design_may_cost_more_than_the_budget():
    for budget in (8.0, 20.0):
        found = choice(budget)
        assert all(design.price[1] <= budget for design in found.designs)
        for design in found.designs:
            looks: Any = design.looks
            plan = replace(
                PLAN,
                comparison=replace(PLAN.comparison, seeds=design.seeds),
                decision=DecisionPlan(looks=looks),
            )
            money = price(plan, TIMINGS, workers=1).money
            assert money is not None
            assert design.price[1] == pytest.approx(money[1])
            assert design.price[0] <= design.price[1]


def test_a_small_job_is_not_worth_a_pilot():
    found = choice(100.0, hours=20.0)
    assert found.best is None
    assert "Do not pilot" in lines(found)[-1]
    assert as_data(found)["options"] is None


def test_a_budget_below_every_design_names_the_cheapest():
    found = choice(0.5)
    assert found.best is None
    assert f"the cheapest may cost {found.cheapest:,.3g} USD" in lines(found)[-1]


def test_a_large_job_gets_the_options_of_its_best_design():
    found = choice(100.0)
    assert found.best is not None
    assert found.best.worth == max(design.worth for design in found.designs)
    assert found.options is not None
    assert lines(found)[-1].endswith(found.options)
    made = make_plan({}, [s.strip() for s in found.options.split("--set")[1:]])
    assert made.comparison.seeds == found.best.seeds
    assert (made.cost.budget, made.cost.price_per_hour) == (100.0, 2.0)


def test_more_money_in_the_job_buys_more_pairs():
    few, many = choice(1000.0, hours=300.0), choice(1000.0, hours=300_000.0)
    assert few.best is not None
    assert many.best is not None
    assert few.best.price[0] < many.best.price[0]


def test_what_is_known_for_sure_needs_no_pilot():
    sure = choice(100.0, prior=Prior(mean=0.3, sd=0.001))
    assert sure.best is None
    assert sure.without > 0
    assert "to switch" in lines(sure)[1]


def test_worth_is_that_of_the_decisions_by_a_plain_sum():
    job, prior = Job(money=1000.0, step_time=1.0, min_saving=0.05), Prior(mean=0.06, sd=0.08)
    found = designs(
        PLAN, job, prior, sd=1e-6, rates=0.0, price_of=lambda p: price(p, TIMINGS, workers=1)
    )
    x = np.linspace(prior.mean - 8 * prior.sd, prior.mean + 8 * prior.sd, 200_001)
    density = np.exp(-((x - prior.mean) ** 2) / (2 * prior.sd**2))
    gain = job.gain(x)
    ideal = (np.maximum(gain, 0.0) * density).sum() / density.sum()
    unseen = max(0.0, (gain * density).sum() / density.sum())
    for design in found:
        assert design.gain == pytest.approx(ideal, rel=0.03)  # of 20,000 draws
        assert design.worth == pytest.approx(design.gain - unseen - design.price[0], abs=1.5)
    assert without_pilot(job, prior) == pytest.approx(unseen, abs=1.5)


def test_looks_at_every_pair_err_as_rarely_as_the_plan_states():
    rng, threshold = np.random.default_rng(3), -math.log1p(-0.05)
    pairs = threshold + rng.normal(0.0, 0.05, (20_000, 10))
    verdict, used = verdicts(pairs, DecisionPlan(looks="every-pair"), 0.0)
    assert (verdict > 0).mean() < 0.025 + 0.004
    assert (verdict < 0).mean() < 0.025 + 0.004
    assert set(np.unique(used)) <= set(map(float, range(3, 11)))


def test_seeds_of_a_design_are_not_those_of_the_tuning():
    plan = small_plan(arms=PLAN.arms, seeds=(1, 3), more_seeds=(4,), cost=PLAN.cost)
    plan = replace(plan, tuning=replace(plan.tuning, seed=2))
    job = Job(money=1e4, step_time=1.0, min_saving=0.05)
    found = designs(
        plan, job, BROAD, sd=0.03, rates=0.0, price_of=lambda p: price(p, TIMINGS, workers=1)
    )
    assert all(not {2, 4} & set(design.seeds) for design in affordable(found, math.inf))
    assert {len(design.seeds) for design in found} >= {3, 5, 10}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (dict(budget=5.0, price=None, hours=3.0), "exclude each other"),
        (dict(budget=-1.0, price=2.0, hours=None), "--budget -1 must be above 0"),
        (dict(budget=5.0, price=math.nan, hours=None), "--price nan must be above 0"),
        (dict(budget=None, price=2.0, hours=3.0), "with --hours leave it out"),
        (dict(budget=5.0, price=None, hours=None), "--budget needs a price"),
    ],
    ids=["both", "negative", "nan", "price of hours", "no price"],
)
def test_a_budget_that_says_nothing_is_refused(given: dict[str, float | None], told: str):
    plan = replace(PLAN, cost=CostPlan())
    with pytest.raises(UserError, match=told):
        budget_of(plan, **given)


@pytest.mark.parametrize(("saving", "sd"), [(1.0, 0.1), (-11.0, 0.1), (0.1, 0.0), (0.1, math.nan)])
def test_a_prior_out_of_range_is_refused(saving: float, sd: float):
    with pytest.raises(UserError, match="--prior-s"):
        checked_prior(saving, sd)


def test_hours_are_a_budget_without_a_price():
    plan = budget_of(replace(PLAN, cost=CostPlan()), None, None, 3.0)
    assert (plan.cost.price_per_hour, plan.cost.currency) == (1.0, "h")


def test_unknown_noise_is_no_basis_for_a_budget():
    with pytest.raises(UserError, match="finish two pairs"):
        weighed(PLAN, forecast(noise=None), 10.0, BROAD, 1)

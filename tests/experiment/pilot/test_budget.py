"""Decisions within a budget: weighed by their savings, and never more than it pays for."""

from __future__ import annotations

import functools
import json
import math
import shlex
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mars_optim.cli.budget import Choice, as_data, lines, table, weighed
from mars_optim.errors import UserError
from mars_optim.experiment.analysis.looks import confidence_at, hopeful, least_hopeful
from mars_optim.experiment.analysis.stats import t_interval
from mars_optim.experiment.pilot.price import price
from mars_optim.experiment.pilot.retries import Timing
from mars_optim.experiment.pilot.simulated_verdicts import verdicts
from mars_optim.experiment.pilot.worth import (
    Design,
    Job,
    Prior,
    affordable,
    beside,
    budget_of,
    checked_prior,
    designs,
    without_pilot,
)
from mars_optim.experiment.plan.comparison import ComparisonPlan
from mars_optim.experiment.plan.cost import CostPlan
from mars_optim.experiment.plan.decision import DecisionPlan
from mars_optim.experiment.plan.plan_file import make_plan
from mars_optim.experiment.plan.written import plain
from tests.support.budgets import BROAD, PLAN, TIMINGS, forecast
from tests.support.pretend import small_plan


@functools.cache
def choice(budget: float, *, hours: float = 5000.0, prior: Prior = BROAD) -> Choice:
    plan = replace(PLAN, cost=replace(PLAN.cost, planned_hours=hours))
    return weighed(plan, forecast(), budget, prior, 1)


@pytest.mark.slow
def test_no_design_may_cost_more_than_the_budget():
    for budget in (8.0, 20.0):
        found = choice(budget)
        assert all(design.price[1] <= budget for design in found.designs)
        for design in found.designs:
            plan = make_plan(plain(PLAN), design.variant.settings)
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
    sets = [text for text in shlex.split(found.options) if text != "--set"]
    made = make_plan({}, tuple(sets))
    assert made.comparison.seeds == found.best.variant.plan.comparison.seeds
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
    every = designs(PLAN, job, prior, sd=1e-6, rates=0.0, timings=TIMINGS, workers=1)
    whole = (PLAN.tuning.max_trials, PLAN.training.steps)
    found = [d for d in every if (max_trials(d), d.variant.plan.training.steps) == whole]
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
    found = designs(plan, job, BROAD, sd=0.03, rates=0.0, timings=TIMINGS, workers=1)
    seeds = [d.variant.plan.comparison.seeds for d in affordable(found, math.inf)]
    assert all(not {2, 4} & set(used) for used in seeds)
    assert {len(used) for used in seeds} >= {3, 5, 10}


THREE = replace(
    small_plan(arms=("adamw", "nadamw", "mars-adamw"), steps=1000, cost=PLAN.cost),
    comparison=ComparisonPlan(others="after-go"),
)
"""A control that waits for a go; the ladder has three budgets beside 1."""


@functools.cache
def of_three(mean: float, **changes: Any) -> list[Design]:
    """The designs of a job where the saving is known to be ``mean``, in log tokens."""
    prior = Prior(mean=mean, sd=1e-3)
    job = Job(money=1e4, step_time=1.0, min_saving=0.05)
    timings = {("main", arm): Timing(0.5) for arm in THREE.arms}
    return designs(
        replace(THREE, **changes), job, prior, sd=1e-3, rates=1e-3, timings=timings, workers=1
    )


def max_trials(design: Design) -> int:
    return design.variant.plan.tuning.max_trials


def twins(found: list[Design], one: str, other: str) -> list[tuple[Design, Design]]:
    """Designs that differ in the arms beside the two only."""
    by_axes = {design.variant.axes: design for design in found}
    pairs = []
    for design in found:
        pair, others, *rest = design.variant.axes
        if others == one and (twin := by_axes.get((pair, other, *rest))):
            pairs.append((design, twin))
    assert pairs
    return pairs


@pytest.mark.slow
def test_a_control_that_waits_costs_nothing_without_a_go():
    for waiting, without in twins(of_three(-0.5), "after-go", "none"):
        assert waiting.go == 0
        assert waiting.price[0] == pytest.approx(without.price[0])
        assert waiting.price[1] > without.price[1]  # at the most there is a go


@pytest.mark.slow
def test_a_control_is_paid_by_the_chance_of_a_go():
    run = 1000 * 0.5 / 3600 * 2.0
    for waiting, without in twins(of_three(0.5), "after-go", "none"):
        if waiting.variant.tuning_seeds == 1:
            trials = 5.912 if max_trials(waiting) == 16 else 5.813
            runs = waiting.go * trials + waiting.go * waiting.pairs
            share = waiting.variant.plan.training.steps / 1000
            more = waiting.price[0] - without.price[0]
            assert more == pytest.approx(runs * run * share, rel=0.01)


@pytest.mark.slow
def test_a_plan_that_always_runs_its_control_may_let_it_wait():
    always = replace(THREE.comparison, others="always")
    found = of_three(-0.5, comparison=always)
    assert {design.variant.others for design in found} == {"always", "after-go", "none"}
    for with_it, waiting in twins(found, "always", "after-go"):
        assert waiting.price[0] < with_it.price[0]
        assert waiting.price[1] == pytest.approx(with_it.price[1])


@pytest.mark.slow
def test_designs_vary_what_the_program_can_run_and_only_that():
    found = of_three(0.1)
    plans = [design.variant.plan for design in found]
    ladders = {(plan.ladder, plan.comparison.ladder_seeds) for plan in plans}
    assert ladders == {(rungs, few) for rungs in ((0.5, 0.75, 1.5), (0.5, 1.5)) for few in (0, 1)}
    trials = {(max_trials(design), design.variant.tuning_seeds) for design in found}
    assert trials == {(16, 1), (8, 1), (16, 2), (16, 3)}
    assert {plan.training.steps for plan in plans} == {1000, 500}
    for design in found:
        assert make_plan(plain(THREE), design.variant.settings) == design.variant.plan


def test_a_search_that_is_cut_off_decides_less_often():
    found = {design.variant.axes: design for design in of_three(0.5)}
    for axes, design in found.items():
        if max_trials(design) == 8:
            whole = found[(*axes[:3], (16, 1), axes[4])]
            assert design.go == pytest.approx(whole.go * (1 - 0.051) ** 2)
            assert design.price[1] < whole.price[1]


def test_shorter_runs_are_weaker_evidence_of_the_plans_own():
    prior, job = Prior(mean=0.05, sd=0.05), Job(money=1e5, step_time=1.0, min_saving=0.05)
    found = designs(PLAN, job, prior, sd=0.01, rates=0.0, timings=TIMINGS, workers=1)
    by_axes = {design.variant.axes: design for design in found}
    for design in found:
        if design.variant.plan.training.steps == 500:
            assert design.gain < by_axes[(*design.variant.axes[:4], 1000)].gain


def test_a_hopeless_pilot_stops_before_its_last_pair():
    rng, threshold = np.random.default_rng(3), -math.log1p(-0.05)
    pairs = threshold + rng.normal(0.0, 0.05, (2_000, 10))
    verdict, used = verdicts(pairs, DecisionPlan(looks="every-pair"), 0.0)
    stopped = used[verdict == 0]
    assert (stopped < 10).mean() > 0.5
    few = t_interval(pairs[0, :5].tolist(), confidence_at(0.95, 5))
    at = abs(few.mean - threshold) + few.error
    assert hopeful(few, threshold, 0.95, 10) == (at / few.sd >= least_hopeful(0.95, 10))


def test_the_table_has_the_designs_one_change_away():
    found = choice(100.0)
    assert found.best is not None
    rows = table(found)[2:]
    assert len(rows) == 1 + len(beside(found.designs, found.best))
    assert rows[0].split()[-1] == f"{found.best.worth:+,.3g}"
    assert len({len(row) for row in rows}) == 1
    assert len(as_data(found)["designs"]) == len(found.designs) > len(rows)


def test_programs_get_each_design_in_plain_numbers():
    found = choice(100.0)
    told = json.loads(json.dumps(as_data(found)))["designs"][0]
    best = found.designs[0]
    made = make_plan(plain(PLAN), tuple(told["settings"]))
    assert tuple(told["seeds"]) == made.comparison.seeds
    assert (told["steps"], told["max_trials"]) == (made.training.steps, made.tuning.max_trials)
    again = len(made.tuning.more_seeds)
    assert (told["looks"], told["tuning_seeds"]) == (made.decision.looks, 1 + again)
    assert (told["price"], told["worth"]) == (list(best.price), best.worth)
    assert not {"variant", "plan"} & told.keys()


@pytest.mark.slow
def test_what_the_left_out_arms_would_cost_is_said():
    plan = replace(THREE, cost=PLAN.cost)
    timings = {("main", arm): Timing(0.5) for arm in THREE.arms}
    told = forecast()
    told = replace(told, timings=timings, probe={arm: dict(ratio=1.0) for arm in THREE.arms})
    found = weighed(plan, told, 100.0, BROAD, 1)
    assert found.best is not None
    assert found.best.variant.others == "none"
    assert "with them (after-go) the pilot costs" in "\n".join(lines(found))


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


def test_an_unknown_step_time_is_no_basis_for_a_budget():
    found = replace(forecast(), probe={arm: dict(ratio=None) for arm in PLAN.arms})
    with pytest.raises(UserError, match="write `seconds`"):
        weighed(PLAN, found, 10.0, BROAD, 1)

"""Hours and money: units, intervals, and who pays for the pilot."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.experiment.analysis.cost import money_of, production_job, share_of_hours
from mars_optim.experiment.analysis.money import StepTime
from mars_optim.experiment.analysis.stats import Interval, t_interval
from mars_optim.experiment.plan.cost import CostPlan

SAVES = t_interval([math.log(1.25)] * 5, 0.95)  # 20 % of the tokens, beyond doubt
SURE = StepTime(ratio=1.0, low=1.0, high=1.0, rounds=15)
COST = CostPlan(price_per_hour=2.0, planned_hours=1000.0)


def money(cost: CostPlan = COST, log_ratio: Interval = SAVES, step: StepTime = SURE, hours=3.0):  # type: ignore[no-untyped-def]
    return money_of(cost, log_ratio, step, confidence=0.95, pilot_seconds=3600 * hours)


def test_hours_and_money_are_the_share_of_the_job():
    found = money()
    assert found.share.mean == pytest.approx(0.2)
    assert found.hours.mean == pytest.approx(200.0)
    assert found.money.mean == pytest.approx(400.0)
    assert found.job.money == 2000.0
    assert (found.pilot_hours, found.pilot_money) == (3.0, 6.0)
    assert found.net.mean == pytest.approx(394.0)


def test_a_slower_step_eats_the_saving():
    slow = replace(SURE, ratio=1.25, low=1.25, high=1.25)
    assert money(step=slow).share.mean == pytest.approx(0.0)
    half = replace(SURE, ratio=1.1, low=1.1, high=1.1)
    assert money(step=half).share.mean == pytest.approx(1 - 1.1 / 1.25)


def test_fleet_is_paid_in_full_and_pilot_as_one_device():
    fleet = money(replace(COST, devices=16))
    assert fleet.job.price_per_hour == 32.0
    assert fleet.money.mean == pytest.approx(16 * 400.0)
    assert fleet.pilot_money == 6.0
    other = money(replace(COST, devices=16, pilot_price_per_hour=0.5))
    assert other.pilot_money == 1.5


def test_planned_tokens_at_a_speed_replace_planned_hours():
    cost = replace(COST, planned_tokens=50e9, tokens_per_hour=1e9)
    found = money(cost)
    assert (found.job.hours, found.job.tokens) == (50.0, 50e9)
    assert found.hours.mean == pytest.approx(10.0)
    assert found.tokens.mean == pytest.approx(10e9)


@pytest.mark.parametrize(
    ("options", "tokens"),
    [(dict(planned_tokens=7e9), 7e9), (dict(tokens_per_hour=1e6), 1e9), (dict(), None)],
)
def test_one_of_the_two_leaves_planned_hours_in_force(options: dict[str, float], tokens: float):
    job = production_job(replace(COST, **options))  # type: ignore[arg-type]
    assert (job.hours, job.tokens) == (1000.0, tokens)


def test_without_a_price_there_are_hours_and_no_money():
    found = money(CostPlan())
    assert found.hours.mean == pytest.approx(200.0)
    assert (found.money, found.net, found.break_even_hours) == (None, None, None)
    assert found.pilot_money == 0.0


def test_at_the_break_even_hours_the_saving_is_the_pilots_cost():
    cost = replace(COST, devices=4, planned_tokens=1e12)
    found = money(cost)
    again = money(replace(cost, planned_hours=found.break_even_hours))
    assert again.net.mean == pytest.approx(0.0, abs=1e-9)


def test_where_nothing_is_saved_no_job_is_long_enough():
    losing = t_interval([-0.1, -0.12, -0.08], 0.95)
    found = money(log_ratio=losing)
    assert (found.break_even_hours, found.break_even_hours_low) == (None, None)
    assert found.net.mean < found.money.mean < 0


def test_the_downside_is_the_intervals_lower_end_less_the_pilot():
    found = money(log_ratio=t_interval([0.1, 0.3, 0.2], 0.95))
    assert found.net.low == pytest.approx(found.money.low - 6.0)
    assert found.money.low < 0 < found.money.mean
    assert found.break_even_hours is not None
    assert found.break_even_hours_low is None


@given(
    ratio=st.floats(0.5, 2),
    spread=st.floats(0, 0.2),
    effect=st.floats(-0.5, 0.5),
    sd=st.floats(0, 0.2),
)
def test_step_time_error_widens_the_interval_but_never_moves_it(
    ratio: float, spread: float, effect: float, sd: float
):
    tokens = Interval.of(effect, sd, 5, 0.95)
    step = StepTime(
        ratio=ratio, low=ratio * math.exp(-spread), high=ratio * math.exp(spread), rounds=15
    )
    sure = share_of_hours(tokens, replace(step, low=ratio, high=ratio), 0.95)
    share = share_of_hours(tokens, step, 0.95)
    assert share.mean == pytest.approx(1 - ratio * math.exp(-effect))
    assert share.mean == pytest.approx(sure.mean)
    assert share.low <= sure.low + 1e-12
    assert share.high >= sure.high - 1e-12
    expected = 1 - ratio * math.exp(-tokens.low)
    assert sure.low == pytest.approx(expected)


def test_median_step_time_interval_covers_truth_at_its_level():
    import numpy as np

    rng, hits, repeats = np.random.default_rng(0), 0, 2000
    for draws in np.exp(0.05 + 0.1 * rng.standard_normal((repeats, 15))):
        low, middle, high = np.quantile(draws, [0.25, 0.5, 0.75])
        found = StepTime(ratio=middle, low=low, high=high, rounds=15).log_interval(0.95)
        hits += found.low <= 0.05 <= found.high
    assert 0.9 < hits / repeats < 0.99  # quartiles of 15 rounds are rough


def test_any_text_is_a_currency():
    assert money(replace(COST, currency="円 <b>")).currency == "円 <b>"


def test_one_pair_gives_no_interval_and_no_error():
    found = money(log_ratio=t_interval([0.2], 0.95))
    assert found.net.low == -math.inf
    assert found.break_even_hours_low is None

"""When curves reach a target, and the ratio of times of which some are only known to be longer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from benchmarks.simulated_targets import World, draw, intervals
from mars_optim.experiment.analysis.stats import shifted, t_interval
from mars_optim.experiment.analysis.survival import (
    Times,
    draw_ratios,
    kind_of,
    median_time,
    not_yet,
    ratio_interval,
)
from mars_optim.experiment.analysis.target import first_reached

BASE = np.array([0.0, 0.1, -0.1, 0.05, -0.08])
CAND = BASE - np.array([0.2, 0.25, 0.18, 0.22, 0.21])
NONE = np.zeros(5, bool)


def some(*missed: int) -> np.ndarray:
    return np.isin(np.arange(5), missed)


@pytest.mark.parametrize(
    ("values", "at"),
    [
        ([0.9, 0.6, 0.4, 0.3], 2.5),  # half-way between the second and the third
        ([0.9, 0.5, 0.4, 0.3], 2.0),
        ([0.9, 0.4, 0.8, 0.3], 1.8),  # the first time counts
        ([0.5, 0.4, 0.3, 0.2], 1.0),
    ],
    ids=["between", "on one", "twice", "at the first"],
)
def test_the_first_time_is_read_on_a_straight_line(values: list[float], at: float):
    found, reached, first = first_reached([1, 2, 3, 4], values, 0.5)
    assert reached
    assert found == pytest.approx(at)
    assert (first == 0) == (at == 1.0)


@given(
    curve=st.lists(st.floats(-1, 1), min_size=2, max_size=30),
    goal=st.floats(-1, 1),
)
def test_a_time_lies_between_the_evaluations_around_it(curve: list[float], goal: float):
    steps = np.arange(len(curve)) + 1.0
    at, reached, first = first_reached(steps, curve, goal)
    assert reached == any(value <= goal for value in curve)
    if reached:
        assert max(1, first) <= at <= first + 1


def test_without_a_miss_it_is_students_interval_of_the_pairs():
    found, kind = ratio_interval(Times(BASE, CAND, NONE, NONE), 0.95)
    assert kind == "pairs"
    assert found == t_interval((BASE - CAND).tolist(), 0.95)


def test_draws_of_whole_pairs_are_students():
    exact = t_interval((BASE - CAND).tolist(), 0.95)
    delta, _ = draw_ratios(Times(BASE, CAND, NONE, NONE))
    low, high = np.quantile(delta, (0.025, 0.975))
    assert [low, high] == pytest.approx([exact.low, exact.high], rel=0.03)


def test_a_miss_raises_the_ratio_above_that_of_its_length():
    cut = BASE.copy()
    cut[[1, 3]] = [-0.05, -0.1]  # lengths of runs that would have taken longer
    found, kind = ratio_interval(Times(cut, CAND, some(1, 3), NONE), 0.95)
    assert kind == "censored"
    assert found.mean > t_interval((cut - CAND).tolist(), 0.95).mean
    assert found.low < 0.212 < found.high  # of the times themselves


def test_the_two_arms_are_treated_alike():
    one, _ = ratio_interval(Times(BASE, CAND, some(1), NONE), 0.95)
    other, _ = ratio_interval(Times(CAND, BASE, NONE, some(1)), 0.95)
    assert [-other.high, -other.low] == pytest.approx([one.low, one.high], abs=0.02)


def test_many_censored_pairs_agree_with_the_fit_of_scipy():
    rng = np.random.default_rng(3)
    base, cand = rng.normal(0.2, 0.3, 400), rng.normal(0.0, 0.3, 400)
    missed = [base > 0.3, cand > 0.3]
    times = Times(np.minimum(base, 0.3), np.minimum(cand, 0.3), *missed)
    delta, _ = draw_ratios(times, chains=8, before=60, kept=60)
    from scipy.stats import CensoredData

    fitted = [
        norm.fit(CensoredData(uncensored=x[~m], right=np.full(m.sum(), 0.3)))[0]
        for x, m in zip((base, cand), missed, strict=True)
    ]
    assert np.median(delta) == pytest.approx(fitted[0] - fitted[1], abs=0.01)


@pytest.mark.parametrize(
    ("base", "cand", "kind"),
    [
        ((), (), "pairs"),
        ((0, 1), (), "censored"),
        ((0,), (0,), "censored"),
        ((0, 1, 2), (), "at least"),
        ((), (0, 1, 2, 3, 4), "at most"),
        ((0, 1), (2,), "too few"),
        ((0, 1, 2), (2,), "too few"),
    ],
)
def test_how_a_ratio_is_told(base: tuple[int, ...], cand: tuple[int, ...], kind: str):
    assert kind_of(Times(BASE, CAND, some(*base), some(*cand))) == kind


def test_the_choice_of_the_rates_widens_a_drawn_interval():
    found, _ = ratio_interval(Times(BASE, CAND, some(1), NONE), 0.95)
    wider = shifted(found, [-0.1, 0.1])
    assert wider.low < found.low
    assert wider.high > found.high
    same = shifted(found, [0.0])
    assert (same.low, same.high) == (found.low, found.high)


def test_a_curve_falls_at_each_time_and_not_where_a_run_ended():
    curve = not_yet(np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, True, False, False]))
    assert dict(curve) == pytest.approx({1.0: 0.75, 2.0: 0.75, 3.0: 0.375, 4.0: 0.0})
    assert median_time(curve) == 3.0
    assert median_time(not_yet(np.array([1.0, 2.0, 2.0]), np.array([False, True, True]))) is None


@pytest.mark.parametrize(("effect", "missed"), [(0.0, 0.3), (0.2231, 0.5)])
def test_in_simulated_pilots_the_interval_holds_the_truth(effect: float, missed: float):
    world = World(effect=effect, missed=missed)
    kinds, low, high = intervals(draw(5, 250, world, np.random.default_rng(1)))
    told = kinds != "too few"
    within = (low[told] <= effect) & (effect <= high[told])
    assert np.mean(kinds == "censored") > 0.3
    assert within.mean() > 0.95 - 3 * np.sqrt(0.95 * 0.05 / told.sum())

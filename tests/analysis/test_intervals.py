"""The t interval covers what it says; the number of pairs that is called enough is enough."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from mars_optim.analysis.stats import Interval, pairs_needed, t_interval, t_quantile

REPEATS = 4000

value = st.floats(-100, 100)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("pairs", [3, 5, 8])
def test_the_interval_covers_the_truth_as_often_as_it_says(pairs: int, confidence: float):
    draws = np.random.default_rng(pairs).normal(0.3, 2.0, size=(REPEATS, pairs))
    intervals = [t_interval(list(row), confidence) for row in draws]
    covered = sum(i.low <= 0.3 <= i.high for i in intervals) / REPEATS
    error = math.sqrt(confidence * (1 - confidence) / REPEATS)
    assert abs(covered - confidence) < 3.5 * error


@given(st.lists(value, min_size=2, max_size=12), st.floats(0.55, 0.999))
def test_it_is_scipys_paired_t_interval(values: list[float], confidence: float):
    assume(np.std(values) > 1e-6)
    ours = t_interval(values, confidence)
    theirs = stats.ttest_rel(values, [0.0] * len(values)).confidence_interval(confidence)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=1e-9)
    assert ours.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert (ours.n, ours.sd) == (len(values), pytest.approx(np.std(values, ddof=1)))


def test_one_value_says_nothing_about_the_spread():
    interval = t_interval([0.5], 0.95)
    assert (interval.mean, interval.n) == (0.5, 1)
    assert (interval.low, interval.high) == (-math.inf, math.inf)
    assert math.isnan(interval.sd)


def test_no_value_gives_no_estimate():
    interval = t_interval([], 0.95)
    assert interval.n == 0
    assert math.isnan(interval.mean)
    assert (interval.low, interval.high) == (-math.inf, math.inf)


def test_equal_values_give_a_point():
    assert t_interval([0.25, 0.25, 0.25], 0.95) == Interval(0.25, 0.25, 0.25, 3, 0.0)


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (math.exp, (math.exp(0.1), math.exp(-0.2), math.exp(0.4))),
        (lambda x: -x, (-0.1, -0.4, 0.2)),
        (lambda x: 1 - math.exp(-x), (1 - math.exp(-0.1), 1 - math.exp(0.2), 1 - math.exp(-0.4))),
    ],
)
def test_a_mapped_interval_keeps_its_ends_in_order(
    f: Callable[[float], float], expected: tuple[float, ...]
):
    mapped = Interval(0.1, -0.2, 0.4, 5, 0.3).map(f)
    assert (mapped.mean, mapped.low, mapped.high) == pytest.approx(expected)
    assert (mapped.n, mapped.sd) == (5, 0.3)


def half_width(sd: float, confidence: float, n: int) -> float:
    return float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * sd / math.sqrt(n)


@given(mean=value, sd=st.floats(0.01, 100), threshold=value, confidence=st.floats(0.55, 0.999))
def test_the_pairs_that_are_called_needed_suffice_and_one_fewer_does_not(
    mean: float, sd: float, threshold: float, confidence: float
):
    distance = abs(mean - threshold)
    needed = pairs_needed(mean, sd, threshold, confidence)
    if needed is None:
        assert half_width(sd, confidence, 200) >= distance
        return
    assert half_width(sd, confidence, needed) < distance
    assert needed == 2 or half_width(sd, confidence, needed - 1) >= distance


@pytest.mark.parametrize("sd", [0.0, 1.0])
def test_no_number_of_pairs_tells_an_effect_from_itself(sd: float):
    assert pairs_needed(0.05, sd, 0.05, 0.95) is None


def test_the_quantile_is_the_tables():
    assert t_quantile(0.95, 5) == pytest.approx(2.776, abs=5e-4)
    assert t_quantile(0.95, 3) == pytest.approx(4.303, abs=5e-4)

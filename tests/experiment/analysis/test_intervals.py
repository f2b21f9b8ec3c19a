"""The t interval covers what it says; the number of pairs that is called enough is enough."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from mars_optim.experiment.analysis.stats import (
    Interval,
    combine,
    holm,
    p_value,
    pairs_needed,
    power,
    sd_interval,
    t_interval,
    t_quantile,
)

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


def chance(distance: float, sd: float, n: int, confidence: float) -> float:
    """Chance of the t test, by scipy's noncentral t."""
    needed = float(stats.t.ppf(0.5 + confidence / 2, n - 1))
    return float(stats.nct.sf(needed, n - 1, distance * math.sqrt(n) / sd))


@given(
    distance=st.floats(0.001, 5),
    sd=st.floats(0.1, 10),
    n=st.integers(2, 40),
    confidence=st.floats(0.55, 0.999),
)
def test_the_chance_is_the_noncentral_ts(distance: float, sd: float, n: int, confidence: float):
    assert power(distance, sd, n, confidence) == pytest.approx(
        chance(distance, sd, n, confidence), abs=1e-6
    )


@given(
    mean=value, sd=st.floats(0.01, 100), threshold=value, confidence=st.sampled_from([0.8, 0.95])
)
def test_pairs_needed_reach_the_power_and_one_fewer_does_not(
    mean: float, sd: float, threshold: float, confidence: float
):
    distance = abs(mean - threshold)
    needed = pairs_needed(mean, sd, threshold, confidence)
    if needed is None:
        assert power(distance, sd, 200, confidence) < 0.8
        return
    assert power(distance, sd, needed, confidence) >= 0.8
    assert needed == 2 or power(distance, sd, needed - 1, confidence) < 0.8


def test_interval_that_would_just_reach_has_power_of_one_half():
    n, sd = 20, 1.0
    just = float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n)
    assert power(just, sd, n, 0.95) == pytest.approx(0.5, abs=0.02)


def test_without_an_effect_the_chance_of_seeing_one_is_the_level():
    assert power(0.0, 1.0, 5, 0.95) == pytest.approx(0.025)


@pytest.mark.parametrize("pairs", [2, 4, 10])
def test_the_interval_of_the_noise_covers_it_as_often_as_it_says(pairs: int):
    draws = np.random.default_rng(pairs).normal(0.0, 2.0, size=(REPEATS, pairs))
    factors = sd_interval(1.0, pairs, 0.95)
    sds = draws.std(axis=1, ddof=1)
    covered = np.mean((factors[0] * sds <= 2.0) & (factors[1] * sds >= 2.0))
    assert abs(covered - 0.95) < 3.5 * math.sqrt(0.95 * 0.05 / REPEATS)
    assert sd_interval(1.0, 1, 0.95) == (0.0, math.inf)


def test_combined_interval_of_two_quantities_covers_the_truth():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(2000):
        a = t_interval(rng.normal(0.3, 0.1, 8).tolist(), 0.95)
        b = t_interval(rng.normal(0.1, 0.05, 15).tolist(), 0.95)
        both = combine(a, b, sign=-1)
        hits += both.low <= 0.2 <= both.high
    assert 0.95 - 3.5 * math.sqrt(0.95 * 0.05 / 2000) < hits / 2000 < 0.98


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holms_p_values_are_those_of_the_step_down_definition(p_values: list[float]):
    adjusted, m = holm(p_values), len(p_values)
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
    for level in (0.01, 0.05, 0.2):
        rejected = 0
        for rank, p in enumerate(sorted(p_values)):
            if p * (m - rank) > level:
                break
            rejected += 1
        assert sum(a <= level for a in adjusted) == rejected


def test_holm_over_many_arms_keeps_false_effects_at_five_percent():
    rng, hits, repeats = np.random.default_rng(4), 0, 3000
    for _ in range(repeats):
        shared = rng.normal(0, 1, 5)  # the baseline's noise is in every comparison
        arms = [t_interval((shared + rng.normal(0, 1, 5)).tolist(), 0.95) for _ in range(6)]
        hits += min(holm([p_value(arm) for arm in arms])) <= 0.05
    assert hits / repeats <= 0.05 + 3.5 * math.sqrt(0.05 * 0.95 / repeats)


@given(st.lists(value, min_size=2, max_size=12))
def test_the_p_value_is_scipys(values: list[float]):
    assume(np.std(values) > 1e-6)
    expected = stats.ttest_1samp(values, 0.0).pvalue
    assert p_value(t_interval(values, 0.95)) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("sd", [0.0, 1.0])
def test_no_number_of_pairs_tells_an_effect_from_itself(sd: float):
    assert pairs_needed(0.05, sd, 0.05, 0.95) is None


def test_the_quantile_is_the_tables():
    assert t_quantile(0.95, 5) == pytest.approx(2.776, abs=5e-4)
    assert t_quantile(0.95, 3) == pytest.approx(4.303, abs=5e-4)

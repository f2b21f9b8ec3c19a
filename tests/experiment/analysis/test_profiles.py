"""Performance profiles: how near to the best of each job an arm is, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import combine_pvalues

from mars_optim.experiment.analysis.profiles import (
    DRAWS,
    Costs,
    Evidence,
    Profile,
    at_least,
    seeds_noise,
)
from tests.support.results import baseline_with, candidate_at

RNG = np.random.default_rng(0)


def evidence(*gaps: float, noise: float = 0.01) -> Evidence:
    """Evidence of an arm with these log costs less each other arm's, known to ``noise``."""
    values = np.array(gaps)
    draws = noise * np.random.default_rng(1).standard_normal((len(gaps), DRAWS))
    return Evidence(math.exp(max(0.0, *gaps)), values, draws)


def test_a_share_counts_the_jobs_within_a_factor():
    profile = Profile("a", (evidence(0.0, -0.1), evidence(0.05, 0.2), None), 0.95)
    assert profile.ratios == (1.0, math.exp(0.2), math.inf)
    assert [profile.share(tau) for tau in (1.0, 1.2, 1.3, 100.0)] == [1 / 3, 1 / 3, 2 / 3, 2 / 3]


def test_a_job_that_is_clear_is_in_both_ends_of_the_interval():
    profile = Profile("a", (evidence(-0.3, -0.2), evidence(0.5, 0.2)), 0.95)
    assert profile.ends(1.1) == (0.5, 0.5)
    assert profile.ends(2.0) == (1.0, 1.0)


def test_arms_that_noise_covers_are_not_told_from_the_best():
    profile = Profile("a", (evidence(0.03, noise=0.05), evidence(0.02, noise=0.05)), 0.95)
    assert profile.ends(1.01) == (0.0, 1.0)


def test_an_arm_that_was_not_run_is_never_near_the_best():
    profile = Profile("a", (evidence(-0.3), None), 0.95)
    assert profile.ends(1000.0) == (0.5, 0.5)


def test_tau_has_an_interval_around_what_was_measured():
    low, high = evidence(0.2, 0.1, noise=0.02).limits(0.95)
    assert 1.0 < low < math.exp(0.2) < high < 1.5
    low, high = evidence(-0.2, noise=0.02).limits(0.95)
    assert (low, high) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("p_values", "wrong"),
    [
        ([], 0),
        ([0.5, 0.6], 0),
        ([1e-6, 0.5], 1),
        ([1e-6, 1e-6], 2),
        ([0.04, 0.04, 0.04], 2),  # together, though none by itself
    ],
)
def test_hypotheses_are_counted_by_fishers_combinations(p_values: list[float], wrong: int):
    assert at_least(p_values, 0.025) == wrong
    if p_values:
        combined = combine_pvalues(p_values, method="fisher").pvalue
        assert (combined <= 0.025) == (wrong > 0)


def test_draws_have_students_spread_and_shared_seeds():
    ratios = RNG.standard_normal(8)
    rows = [dict(enumerate(ratios.tolist())), dict(enumerate((2 * ratios).tolist()))]
    noise = seeds_noise(rows, np.random.default_rng(2))
    assert noise.shape == (DRAWS, 2)
    np.testing.assert_allclose(noise[:, 1], 2 * noise[:, 0], atol=1e-12)
    error = ratios.std(ddof=1) / math.sqrt(8)
    ends = np.quantile(noise[:, 0], [0.025, 0.975]) / error
    np.testing.assert_allclose(ends, [-2.365, 2.365], atol=0.2)  # t of 7 degrees


def test_arms_without_common_seeds_are_drawn_apart():
    noise = seeds_noise([{1: 0.1, 2: 0.3}, {3: 0.2, 4: 0.5}], np.random.default_rng(3))
    assert noise.shape == (DRAWS, 2)
    assert not np.allclose(noise[:, 0] / noise[0, 0], noise[:, 1] / noise[0, 1])


def test_errors_of_one_ladder_are_shared_by_arms_of_a_side():
    base = replace(baseline_with(), log_ratio=None)
    effects = {"more": 0.2, "most": 0.4, "less": -0.3}
    arms = [
        replace(candidate_at(x, x), name=name, ladder_error=0.05) for name, x in effects.items()
    ]
    drawn = Costs.of([base, *arms], seed=0).drawn
    for name, effect in effects.items():
        assert drawn[name].mean() == pytest.approx(-effect, abs=0.005)
        assert drawn[name].std() == pytest.approx(0.05, rel=0.05)
    together = np.corrcoef([drawn[name] for name in effects])
    assert together[0, 1] == pytest.approx(1.0)
    assert together[0, 2] == pytest.approx(0.5, abs=0.05)

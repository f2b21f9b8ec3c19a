"""The fit over an arm's trials: where its lowest loss lies, and what is not known of it."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_optim.experiment.analysis.rate_fit import Noise, Observation, RateFit, fit_rate

HALF_STEPS = (-1.0, -0.5, 0.0, 0.5, 1.0)


def valley(octaves: float, curvature: float, ratio: float) -> float:
    return curvature * octaves**2 * (ratio if octaves > 0 else 1.0)


def trials(
    optimum: float, *, curvature: float = 0.1, ratio: float = 1.0, noise: float = 0.0, seed: int = 0
) -> list[Observation]:
    rng = random.Random(f"{seed} {optimum}")
    return [
        (2.0**x, 0, 3.0 + valley(x - optimum, curvature, ratio) + rng.gauss(0.0, noise))
        for x in HALF_STEPS
    ]


def fitted(*args: object, **kwargs: object) -> RateFit:
    found = fit_rate(*args, **kwargs)  # type: ignore[arg-type]
    assert found is not None
    return found


@given(optimum=st.floats(-0.5, 0.5), curvature=st.floats(0.01, 1), ratio=st.floats(1, 2))
@settings(max_examples=30)
def test_the_lowest_point_is_found_between_the_trials(
    optimum: float, curvature: float, ratio: float
):
    fit = fitted(trials(optimum, curvature=curvature, ratio=ratio), 2.0)
    assert abs(math.log2(fit.best) - optimum) < 0.13


def test_a_best_trial_that_is_best_by_noise_does_not_decide():
    """The held-back case: the grid's best trial was not the lowest point."""
    losses = [(2.0**-1, 3.10), (2.0**-0.5, 3.03), (1.0, 3.005), (2.0**0.5, 3.004), (2.0, 3.10)]
    fit = fitted([(lr, 0, loss) for lr, loss in losses], 2.0)
    assert 1.0 < fit.best < 2**0.5


PLATEAU = [(x, 10.3 + 0.02 * math.sin(9 * x)) for x in (-3, -2, -1, 0, 0.5, 1, 1.5, 2, 2.5, 3)]


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_stuck_trials_beyond_a_jump_do_not_bend_the_fit(side: float):
    near = [(x, 4.29 + valley(side * (x + 4.66), 0.42, 2.0)) for x in (-6, -5.5, -5, -4.0)]
    losses = near + PLATEAU
    fit = fitted([(2.0 ** (side * x), 0, loss) for x, loss in losses], 2.0)
    assert abs(side * math.log2(fit.best) + 4.66) < 0.15


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("unit", [1e-5, 1.0, 30.0])
def test_the_units_of_losses_and_rates_do_not_matter(scale: float, unit: float):
    plain = fitted(trials(0.2), 2.0)
    other = fitted([(lr * unit, s, (loss or 0) * scale) for lr, s, loss in trials(0.2)], 2.0)
    assert other.best / unit == pytest.approx(plain.best, rel=2e-2)
    assert statistics.fmean(other.regret(other.best)) == pytest.approx(
        scale * statistics.fmean(plain.regret(plain.best)), rel=0.3
    )


@pytest.mark.slow_but_one
@pytest.mark.parametrize("curvature", [0.005, 0.05, 0.4])
@pytest.mark.parametrize("noise", [0.001, 0.004, 0.02])
def test_the_regret_that_is_told_is_the_regret_that_there_is(curvature: float, noise: float):
    told, real = [], []
    rng = random.Random(0)
    for i in range(40):
        optimum, ratio = rng.uniform(-0.5, 0.5), rng.uniform(1, 2)
        made = trials(optimum, curvature=curvature, ratio=ratio, noise=noise, seed=i)
        fit = fitted(made, 2.0, Noise(noise, 4))
        told.append(statistics.fmean(fit.regret(fit.best)))
        real.append(valley(math.log2(fit.best) - optimum, curvature, ratio))
    # in units of what five seeds cannot tell anyway
    assert abs(statistics.fmean(told) - statistics.fmean(real)) < 0.35 * noise / math.sqrt(5) + 3e-4


def test_a_rate_off_the_lowest_point_is_known_to_lose():
    fit = fitted(trials(0.0, curvature=0.3), 2.0)
    off = statistics.fmean(fit.regret(2**0.5))
    assert off == pytest.approx(0.3 * 0.25, rel=0.3)
    assert statistics.fmean(fit.regret(fit.best)) < 0.03 * off


def test_steep_side_and_far_trial_do_not_move_the_fitted_best():
    near = trials(0.0, curvature=0.02)
    far = [(2.0**-5, 0, 3.9), (4.0, 0, 7.0)]
    assert fitted([*near, *far], 2.0).best == pytest.approx(fitted(near, 2.0).best, rel=0.1)


def test_the_best_rate_is_never_beyond_one_that_diverged():
    made: list[Observation] = [(0.25, 0, 3.4), (0.5, 0, 3.2), (1.0, 0, 3.0), (2**0.5, 0, None)]
    fit = fitted(made, 2.0)
    assert 0.5 < fit.best < 2**0.5
    assert fit.low_high(0.95)[1] <= 2**0.5


def test_no_rate_between_two_that_diverged_elsewhere_is_chosen():
    again = [(0.7, 9, 3.05), (1.0, 9, None), (1.4, 9, None)]
    first = [
        (lr, 0, 3.0 + valley(math.log2(lr) - 0.4, 0.05, 1.0)) for lr in (0.35, 0.5, 0.7, 1, 1.4)
    ]
    assert fitted([*first, (2.0, 0, None)], 2.0).best > 1.0
    assert fitted([*first, (2.0, 0, None), *again], 2.0).best == 0.7


@pytest.mark.parametrize("wall", [4.0, 4.0 * 2**0.5])
def test_no_rate_is_chosen_beside_one_that_diverged(wall: float):
    falling = [(2.0**k, 0, 4.3 - 0.02 * k) for k in range(-2, 2)]
    fit = fit_rate([*falling, (wall, 0, None)], 2.0)
    assert fit is not None
    assert fit.best <= 2.0
    inside = fit_rate([(1.0, 0, 1.9), (2.0, 0, 1.0), (4.0, 0, 1.9), (8.0, 0, None)], 2.0)
    assert inside is not None
    assert 1.0 < inside.best < 4.0


def test_another_tuning_seed_narrows_what_is_not_known():
    one = trials(0.1, curvature=0.02, noise=0.01, seed=1)
    again = [(lr, 1, loss) for lr, _, loss in trials(0.1, curvature=0.02, noise=0.01, seed=2)]
    noise = Noise(0.01, 8)
    low, high = fitted(one, 2.0, noise).low_high(0.95)
    narrow_low, narrow_high = fitted(one + again, 2.0, noise).low_high(0.95)
    assert narrow_high / narrow_low < high / low


def test_a_level_of_a_tuning_seed_is_not_taken_for_a_better_rate():
    one = trials(0.1)
    lifted = [(lr, 1, (loss or 0) + 5.0) for lr, _, loss in one[1:3]]
    assert fitted(one + lifted, 2.0).best == pytest.approx(fitted(one, 2.0).best, rel=0.03)


@pytest.mark.parametrize(
    "made", [[], [(1.0, 0, 3.0)], [(1.0, 0, 3.0), (2.0, 0, None)], [(1.0, 0, 3.0), (1.0, 1, 3.1)]]
)
def test_fewer_than_two_rates_with_a_loss_have_no_fit(made: list[Observation]):
    assert fit_rate(made, 2.0) is None


def test_equal_losses_leave_the_rate_open_over_the_whole_range():
    fit = fitted([(lr, 0, 3.0) for lr, _, _ in trials(0.0)], 2.0)
    low, high = fit.low_high(0.95)
    assert high / low > 2

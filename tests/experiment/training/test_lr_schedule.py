"""The learning rate warms up to its peak and decays to zero."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.experiment.plan.training import TrainingPlan
from mars_optim.experiment.training import lr_factor, scheduled

Decay = Literal["linear", "cosine", "step", "wsd", "constant"]

steps_ = st.integers(10, 400)
warmup_ = st.floats(0.0, 0.9)
decay_ = st.sampled_from(["linear", "cosine"])


def factors(steps: int, warmup: float, decay: Decay) -> list[float]:
    return [lr_factor(i, steps, warmup=warmup, decay=decay) for i in range(steps)]


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("linear", [1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ("cosine", [1 / 3, 2 / 3, *(0.5 + 0.5 * math.cos(math.pi * i / 8) for i in range(8))]),
    ],
)
def test_ten_steps_with_a_fifth_of_warm_up_are_as_written_here(decay: Decay, expected: list[float]):
    assert factors(10, 0.2, decay) == pytest.approx(expected)


@given(steps=steps_, warmup=warmup_, decay=decay_)
def test_every_step_has_a_share_above_zero_and_at_most_one(steps: int, warmup: float, decay: Decay):
    assert all(0.0 < f <= 1.0 for f in factors(steps, warmup, decay))


@given(steps=steps_, warmup=warmup_, decay=decay_)
def test_lr_peaks_right_after_warm_up_and_then_only_falls(steps: int, warmup: float, decay: Decay):
    values = factors(steps, warmup, decay)
    peak = values.index(1.0)
    assert abs(peak - warmup * steps) < 1
    assert all(a < b for a, b in itertools.pairwise(values[: peak + 1]))
    assert all(a > b for a, b in itertools.pairwise(values[peak:]))


@given(steps=steps_, warmup=warmup_, decay=decay_)
def test_it_reaches_zero_exactly_where_the_run_ends(steps: int, warmup: float, decay: Decay):
    assert lr_factor(steps, steps, warmup=warmup, decay=decay) == pytest.approx(0.0, abs=1e-15)


@given(steps=steps_, warmup=warmup_, decay=decay_)
def test_it_never_jumps(steps: int, warmup: float, decay: Decay):
    values = [*factors(steps, warmup, decay), 0.0]
    peak = values.index(1.0)
    slope = math.pi / 2 if decay == "cosine" else 1.0
    largest = max(1 / (peak + 1), slope / (steps - peak))
    start = [0.0] if peak else []  # without warm-up the first step may be a jump
    jumps = [abs(b - a) for a, b in itertools.pairwise([*start, *values])]
    assert max(jumps) <= largest + 1e-12


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_without_warm_up_the_first_step_is_at_the_peak(decay: Decay):
    assert lr_factor(0, 100, warmup=0.0, decay=decay) == 1.0


@pytest.mark.parametrize("share", [0.07, 0.29, 0.57, 0.58])
def test_a_warm_up_of_a_whole_number_of_steps_takes_that_many(share: float):
    values = factors(100, share, "linear")
    assert values.index(1.0) == round(100 * share)


def authors_cosine(it: int, *, peak: float, min_lr: float) -> float:
    """get_lr of the authors' scripts: 2000 steps of warm-up from 0, cosine over 100,000."""
    if it < 2000:
        return peak * it / 2000
    coefficient = 0.5 * (1.0 + math.cos(math.pi * (it - 2000) / 98000))
    return min_lr + coefficient * (peak - min_lr)


GPT2 = TrainingPlan(steps=100_000, warmup=0.02, decay="cosine", min_lr=3e-5)


@pytest.mark.parametrize("peak", [6e-4, 6e-3, 2e-2])
@pytest.mark.parametrize("step", [2000, 2001, 10_000, 40_000, 51_000, 99_999])
def test_published_cosine_is_met_at_every_step_after_warm_up(step: int, peak: float):
    ours = peak * scheduled(GPT2, step, 100_000, peak=peak)
    assert ours == pytest.approx(authors_cosine(step, peak=peak, min_lr=3e-5), rel=1e-12)


@pytest.mark.parametrize("step", [0, 1, 1000, 1999])
def test_published_warm_up_is_met_to_1_in_2000_of_the_peak(step: int):
    ours = scheduled(GPT2, step, 100_000, peak=6e-3)
    published = authors_cosine(step, peak=6e-3, min_lr=3e-5) / 6e-3
    assert 0 < ours - published <= 1 / 2000


def test_published_cosine_is_half_at_51000_and_ends_at_min_lr():
    assert 6e-4 * scheduled(GPT2, 51_000, 100_000, peak=6e-4) == pytest.approx(3.15e-4)
    assert 6e-4 * scheduled(GPT2, 100_000, 100_000, peak=6e-4) == pytest.approx(3e-5)


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, 1), (99.99, 1), (100, 0.1), (149.99, 0.1), (150, 0.01), (199, 0.01)]
)
def test_steps_fall_tenfold_after_100_and_150_of_200_epochs(epoch: float, expected: float):
    assert lr_factor(int(epoch * 391), 200 * 391, warmup=0.0, decay="step") == pytest.approx(
        expected
    )


def test_wsd_is_constant_to_four_fifths_and_then_falls_linearly():
    values = [lr_factor(i, 100, warmup=0.1, decay="wsd") for i in range(101)]
    assert values[10:81] == [1.0] * 71
    assert values[80:] == pytest.approx([1 - i / 20 for i in range(21)])


def test_constant_stays_at_the_peak_after_its_warm_up():
    values = [lr_factor(i, 50, warmup=0.1, decay="constant") for i in range(50)]
    assert values[5:] == [1.0] * 45
    assert values[:5] == pytest.approx([(i + 1) / 6 for i in range(5)])


@pytest.mark.parametrize("decay", ["linear", "cosine", "wsd"])
@given(floor=st.floats(0.0, 1.0))
def test_a_floor_is_where_the_decay_ends_and_never_undercut(decay: Decay, floor: float):
    values = [lr_factor(i, 60, warmup=0.1, decay=decay, floor=floor) for i in range(61)]
    assert values[-1] == pytest.approx(floor, abs=1e-12)
    assert min(values[6:]) >= floor - 1e-12
    assert max(values) == 1.0


def test_a_peak_below_min_lr_is_not_raised_by_the_decay():
    training = TrainingPlan(decay="cosine", warmup=0.0, min_lr=1e-3)
    assert {scheduled(training, i, 20, peak=1e-4) for i in range(20)} == {1.0}

"""The learning rate warms up to its peak and decays to zero."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.train import lr_factor

Decay = Literal["linear", "cosine"]

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
def test_it_rises_to_the_peak_right_after_the_warm_up_and_then_only_falls(
    steps: int, warmup: float, decay: Decay
):
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

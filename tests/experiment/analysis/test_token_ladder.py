"""How many tokens the baseline needs is read off its ladder of budgets."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from mars_optim.experiment.analysis.ladder import BEND, falling_fit, read_ladders, tokens_to_reach

LADDER = [(1000, 3.0), (2000, 2.5), (4000, 2.3)]
STRAIGHT = [(1000, 3.0), (2000, 2.5), (4000, 2.0)]
NOISY = [(1000, 3.0), (2000, 2.5), (4000, 2.7), (8000, 2.4)]
FLAT = [(1000, 3.0), (2000, 3.0), (4000, 2.0)]
RISING = [(1000, 2.0), (2000, 2.5)]

READINGS = [
    ("at a rung", LADDER, 2.5, 2000, ""),
    ("at the first", LADDER, 3.0, 1000, ""),
    ("at the last", LADDER, 2.3, 4000, ""),
    ("straight: halfway in loss is halfway in log tokens", STRAIGHT, 2.75, 1000 * 2**0.5, ""),
    ("straight: a quarter in", STRAIGHT, 2.375, 2000 * 2**0.25, ""),
    ("above the ladder", LADDER, 3.01, 1000, "at most"),
    ("a diverged run", LADDER, math.inf, 1000, "at most"),
    ("below the ladder", LADDER, 2.29, 4000, "at least"),
    ("noise: rungs in the wrong order count as their mean", NOISY, 2.6, 2000, ""),
    ("flat: the fewest tokens count", FLAT, 3.0, 1000, ""),
    ("rising: at the mean", RISING, 2.25, 1000, ""),
    ("rising: above it", RISING, 2.4, 1000, "at most"),
    ("rising: below it", RISING, 2.1, 2000, "at least"),
    ("out of order", STRAIGHT[::-1], 2.75, math.sqrt(1000 * 2000), ""),
    ("two rungs", LADDER[:2], 2.75, 1000 * ((1 + 2**-BEND) / 2) ** (-1 / BEND), ""),
]


@pytest.mark.parametrize(
    ("rungs", "loss", "tokens", "bound"), [r[1:] for r in READINGS], ids=[r[0] for r in READINGS]
)
def test_readings(rungs: list[tuple[int, float]], loss: float, tokens: float, bound: str):
    reading = tokens_to_reach(rungs, loss)
    assert reading.tokens == pytest.approx(tokens, rel=1e-12)
    assert reading.bound == bound


@pytest.mark.parametrize("loss", [2.99, 2.75, 2.6, 2.49, 2.35])
@pytest.mark.parametrize("rungs", [LADDER, NOISY, FLAT])
def test_between_rungs_runs_scipys_monotone_cubic(rungs: list[tuple[int, float]], loss: float):
    logs = [math.log(t) for t, _ in rungs]
    fit = falling_fit([value for _, value in rungs])
    if not fit[-1] < loss < fit[0]:
        return
    roots = PchipInterpolator(logs, fit).solve(loss, extrapolate=False)
    assert math.log(tokens_to_reach(rungs, loss).tokens) == pytest.approx(roots[0], abs=1e-7)


def test_flattening_curve_is_read_closer_than_by_a_straight_line():
    def law(budget: float) -> float:
        return budget**-0.4 / 0.4

    rungs = [(round(10**6 * b), law(b)) for b in (0.5, 0.75, 1.0, 1.5)]
    for gain in (0.05, 0.1, 0.2, 0.3):
        loss = law(math.exp(gain))
        read = math.log(tokens_to_reach(rungs, loss).tokens / 10**6)
        assert read == pytest.approx(gain, abs=5e-4)
        share = (rungs[2][1] - loss) / (rungs[2][1] - rungs[3][1])
        assert share * math.log(1.5) > gain + 2e-3


def test_many_ladders_are_read_at_once_as_each_by_itself():
    rng = np.random.default_rng(0)
    logs = np.log([1000, 2000, 4000, 6000])
    ladders = -0.5 * logs + rng.normal(0, 0.3, (200, 4))
    losses = -0.5 * rng.uniform(logs[0], logs[-1], 200)
    together, sides = read_ladders(logs, ladders, losses)
    for ladder, loss, value, side in zip(ladders, losses, together, sides, strict=True):
        rungs = [(t, float(y)) for t, y in zip((1000, 2000, 4000, 6000), ladder, strict=True)]
        reading = tokens_to_reach(rungs, float(loss))
        assert math.log(reading.tokens) == pytest.approx(value)
        assert reading.bound == {-1: "at most", 0: "", 1: "at least"}[int(side)]
    assert {-1, 0, 1} == set(sides.tolist())


loss_ = st.floats(0.1, 10)
rungs_ = st.lists(
    st.tuples(st.integers(1, 10**12), loss_), min_size=3, max_size=6, unique_by=lambda r: r[0]
)


@given(rungs=rungs_, a=loss_, b=loss_)
def test_a_lower_loss_never_needs_fewer_tokens(rungs: list[tuple[int, float]], a: float, b: float):
    low, high = (tokens_to_reach(rungs, loss).tokens for loss in sorted((a, b)))
    assert low >= high * (1 - 1e-12)


@given(rungs=rungs_, loss=loss_)
def test_a_reading_lies_on_the_ladder_and_a_bound_at_its_ends(
    rungs: list[tuple[int, float]], loss: float
):
    reading = tokens_to_reach(rungs, loss)
    first, last = min(rungs)[0], max(rungs)[0]
    fit = falling_fit([loss for _, loss in sorted(rungs)])
    expected = "at least" if loss < fit[-1] else "at most" if loss > fit[0] else ""
    assert reading.bound == expected
    assert first * (1 - 1e-12) <= reading.tokens <= last * (1 + 1e-12)
    if expected:
        assert reading.tokens == (last if expected == "at least" else first)


@given(values=st.lists(loss_, min_size=1, max_size=6), other=st.lists(loss_, min_size=6))
def test_the_fit_never_rises_and_no_falling_sequence_is_nearer(
    values: list[float], other: list[float]
):
    def distance(fit: list[float]) -> float:
        return math.fsum((a - b) ** 2 for a, b in zip(fit, values, strict=True))

    fit = falling_fit(values).tolist()
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(fit))
    falling = sorted(other, reverse=True)[: len(values)]
    assert distance(fit) <= distance(falling) + 1e-9
    if all(a >= b for a, b in itertools.pairwise(values)):
        assert fit == values


@given(rungs=rungs_, loss=loss_, data=st.data())
def test_the_order_of_the_rungs_does_not_matter(
    rungs: list[tuple[int, float]], loss: float, data: st.DataObject
):
    shuffled = data.draw(st.permutations(rungs))
    assert tokens_to_reach(shuffled, loss) == tokens_to_reach(rungs, loss)


@given(
    slope=st.floats(0.05, 5),
    budgets=st.lists(st.integers(1, 10**9), min_size=3, max_size=6, unique=True),
    share=st.floats(0, 1),
)
def test_ladder_linear_in_log_tokens_is_read_exactly(
    slope: float, budgets: list[int], share: float
):
    rungs = [(t, 100 - slope * math.log(t)) for t in budgets]
    low, high = math.log(min(budgets)), math.log(max(budgets))
    log_tokens = low + share * (high - low)
    reading = tokens_to_reach(rungs, 100 - slope * log_tokens)
    assert math.log(reading.tokens) == pytest.approx(log_tokens, abs=1e-9)

"""How many tokens the baseline needs is read off its ladder of budgets."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.analysis.ladder import falling_fit, tokens_to_reach

LADDER = [(1000, 3.0), (2000, 2.5), (4000, 2.3)]
NOISY = [(1000, 3.0), (2000, 2.5), (4000, 2.7), (8000, 2.4)]
FLAT = [(1000, 3.0), (2000, 3.0), (4000, 2.0)]
RISING = [(1000, 2.0), (2000, 2.5)]

READINGS = [
    ("at a rung", LADDER, 2.5, 2000, ""),
    ("at the first", LADDER, 3.0, 1000, ""),
    ("at the last", LADDER, 2.3, 4000, ""),
    ("halfway in loss is halfway in log tokens", LADDER, 2.75, math.sqrt(1000 * 2000), ""),
    ("a quarter in", LADDER, 2.45, 2000 * 2**0.25, ""),
    ("above the ladder", LADDER, 3.01, 1000, "at most"),
    ("a diverged run", LADDER, math.inf, 1000, "at most"),
    ("below the ladder", LADDER, 2.29, 4000, "at least"),
    ("noise: rungs in the wrong order count as their mean", NOISY, 2.6, 2000, ""),
    ("noise: between them and the next better", NOISY, 2.5, math.sqrt(4000 * 8000), ""),
    ("noise: between them and the one before", NOISY, 2.8, math.sqrt(1000 * 2000), ""),
    ("flat: the fewest tokens count", FLAT, 3.0, 1000, ""),
    ("flat: then on from its end", FLAT, 2.5, math.sqrt(2000 * 4000), ""),
    ("rising: at the mean", RISING, 2.25, 1000, ""),
    ("rising: above it", RISING, 2.4, 1000, "at most"),
    ("rising: below it", RISING, 2.1, 2000, "at least"),
    ("out of order", LADDER[::-1], 2.75, math.sqrt(1000 * 2000), ""),
]


@pytest.mark.parametrize(
    ("rungs", "loss", "tokens", "bound"), [r[1:] for r in READINGS], ids=[r[0] for r in READINGS]
)
def test_readings(rungs: list[tuple[int, float]], loss: float, tokens: float, bound: str):
    reading = tokens_to_reach(rungs, loss)
    assert reading.tokens == pytest.approx(tokens, rel=1e-12)
    assert reading.bound == bound


loss_ = st.floats(0.1, 10)
rungs_ = st.lists(
    st.tuples(st.integers(1, 10**12), loss_), min_size=2, max_size=6, unique_by=lambda r: r[0]
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

    fit = falling_fit(values)
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
    budgets=st.lists(st.integers(1, 10**9), min_size=2, max_size=6, unique=True),
    share=st.floats(0, 1),
)
def test_on_a_ladder_that_is_linear_in_log_tokens_every_reading_is_exact(
    slope: float, budgets: list[int], share: float
):
    rungs = [(t, 100 - slope * math.log(t)) for t in budgets]
    low, high = math.log(min(budgets)), math.log(max(budgets))
    log_tokens = low + share * (high - low)
    reading = tokens_to_reach(rungs, 100 - slope * log_tokens)
    assert math.log(reading.tokens) == pytest.approx(log_tokens, abs=1e-9)

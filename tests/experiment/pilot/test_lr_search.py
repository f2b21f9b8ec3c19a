"""One learning rate at a time, the same way for every arm, to the same resolution."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.experiment.analysis.rate_fit import fit_rate
from mars_optim.experiment.pilot.search import (
    LIKELY,
    SHARP,
    at_edge,
    best_lr,
    next_lr,
    next_outward,
    stencil,
)
from mars_optim.experiment.records.trials import AROUND

Trials = dict[float, float | None]

STEPS: list[tuple[str, Trials, float]] = [
    ("the published default first", {}, 1.0),
    ("then one step up", {1.0: 2.0}, 2.0),
    ("down if the default diverged", {1.0: None}, 0.5),
    ("on upward while the highest is best", {1.0: 3.0, 2.0: 2.0}, 4.0),
    ("downward if the lowest is best", {1.0: 2.0, 2.0: 3.0}, 0.5),
    ("downward from the lower of equals", {1.0: 2.0, 2.0: 2.0}, 0.5),
    ("downward if the higher diverged", {1.0: 2.0, 2.0: None}, 0.5),
    ("downward if both diverged", {1.0: None, 2.0: None}, 0.5),
    ("upward if the lower diverged", {1.0: None, 2.0: 3.0}, 4.0),
    ("halfway to the lower one", {1.0: 1.9, 2.0: 1.0, 4.0: 1.9}, math.sqrt(2)),
    ("around the fit's lowest point, not the best trial", {1.0: 1.05, 2.0: 1.0, 4.0: 2.0}, 2**0.5),
]


@pytest.mark.parametrize(("trials", "expected"), [s[1:] for s in STEPS], ids=[s[0] for s in STEPS])
def test_the_next_trial(trials: Trials, expected: float):
    assert next_lr(1.0, 2.0, trials) == pytest.approx(expected)


@given(st.permutations([1.0, 2.0, 4.0, 8.0]))
def test_the_order_in_which_trials_finished_does_not_matter(order: list[float]):
    losses = {1.0: 4.0, 2.0: 2.0, 4.0: 3.0, 8.0: None}
    trials = {lr: losses[lr] for lr in order}
    assert next_lr(1.0, 2.0, trials) == next_lr(1.0, 2.0, dict(sorted(trials.items())))
    assert best_lr(trials) == 2.0
    assert not at_edge(trials)


@pytest.mark.parametrize(
    ("trials", "best", "edge"),
    [
        ({1.0: 2.0}, 1.0, True),
        ({1.0: 2.0, 2.0: 3.0}, 1.0, True),
        ({1.0: 3.0, 2.0: 2.0}, 2.0, True),
        ({1.0: 3.0, 2.0: 2.0, 4.0: 3.0}, 2.0, False),
        ({1.0: 3.0, 2.0: 2.0, 4.0: 2.0}, 2.0, False),
        ({1.0: None, 2.0: 2.0, 4.0: None}, 2.0, False),
        ({1.0: None, 2.0: None, 4.0: 9.0}, 4.0, True),
        ({1.0: None, 2.0: None}, 1.0, True),
    ],
)
def test_the_best_and_whether_it_is_at_an_edge(trials: Trials, best: float, edge: bool):
    assert best_lr(trials) == best
    assert at_edge(trials) is edge


def search(
    loss: Callable[[float], float | None], *, default: float, factor: float, most: int = 30
) -> Trials:
    trials: Trials = {}
    while (lr := next_lr(default, factor, trials)) is not None and len(trials) < most:
        assert lr not in trials, f"{lr} a second time"
        trials[lr] = loss(lr)
    return trials


default_ = st.floats(1e-6, 10)
factor_ = st.floats(1.2, 10)


@given(default=default_, factor=factor_, optimum=st.floats(-6, 6), steeper=st.floats(1, 3))
def test_arm_ends_with_equal_trials_around_best_from_any_start(
    default: float, factor: float, optimum: float, steeper: float
):
    def loss(lr: float) -> float:
        steps = math.log(lr / default) / math.log(factor) - optimum
        return steps**2 * (steeper if steps > 0 else 1.0)

    trials = search(loss, default=default, factor=factor)
    around = stencil(default, factor, trials)
    assert len(around) == AROUND
    assert set(around) <= set(trials) or is_known(trials, factor)
    assert abs(math.log(around[0] / default) / math.log(factor) - optimum) <= 0.5


def is_known(trials: Trials, factor: float) -> bool:
    fit = fit_rate([(lr, 0, loss) for lr, loss in trials.items()], factor)
    assert fit is not None
    low, high = fit.low_high(LIKELY)
    return math.log(high / low) < SHARP * math.log(factor)


def test_a_fit_that_knows_the_best_rate_ends_the_search():
    losses = {0.003: 2.0267, 0.006: 1.8817, 0.012: 1.8508, 0.024: 1.9157}  # of a real pilot
    assert next_lr(0.003, 2.0, losses, 5) == pytest.approx(0.00849, rel=1e-2)
    losses[0.00849] = 1.8595
    assert is_known(losses, 2.0)
    assert next_lr(0.003, 2.0, losses, 5) is None


@given(default=default_, optimum=st.floats(-4, 4), cliff=st.floats(0.3, 2))
def test_no_rate_beyond_one_that_diverged_is_tried(default: float, optimum: float, cliff: float):
    def loss(lr: float) -> float | None:
        steps = math.log2(lr / default)
        return None if steps >= optimum + cliff else (steps - optimum) ** 2

    trials = search(loss, default=default, factor=2.0)
    gone = [lr for lr, value in trials.items() if value is None]
    assert trials[best_lr(trials)] is not None
    assert not at_edge(trials)
    assert len(gone) <= 2 + max(0, math.ceil(-optimum - cliff) + 1)


@given(
    losses=st.lists(st.none() | st.floats(0, 10), min_size=30, max_size=30),
    default=default_,
    factor=factor_,
)
def test_no_learning_rate_is_tried_twice_whatever_the_losses(
    losses: list[float | None], default: float, factor: float
):
    values = iter(losses)
    trials = search(lambda lr: next(values), default=default, factor=factor)
    assert all(lr > 0 and math.isfinite(lr) for lr in trials)


def test_noisy_best_among_rates_all_too_high_is_not_accepted():
    noise = iter([0.002, 0.0, 0.004, 0.001, 0.003, 0.002, 0.005, 0.001] * 4)

    def loss(lr: float) -> float:
        return 6.0 + next(noise) if lr > 0.4 else 3.0 + math.log2(lr / 0.2) ** 2

    trials = search(loss, default=1.0, factor=2.0)
    assert best_lr(trials) < 0.4


RECORDED = {
    0.0015: 2.2247, 0.003: 2.0267, 0.006: 1.8817, 0.0085: 1.8595, 0.012: 1.8508, 0.017: 1.9079,
    0.024: 1.9165,
}  # fmt: skip
"""MARS-AdamW on the built-in task: uneven above its best rate, and rising below it."""


def test_no_search_goes_down_where_the_loss_rises():
    def loss(lr: float) -> float:
        return RECORDED[min(RECORDED, key=lambda known: abs(math.log(known / lr)))]

    trials = search(loss, default=0.003, factor=2.0)
    assert min(trials) >= 0.0015
    assert len(trials) <= 7  # 11 before, down to 0.00019


OUTWARD: list[tuple[str, Trials, float, float | None]] = [
    ("best of all arms", {0.5: 3.1, 1.0: 3.0, 2.0: 3.1}, 3.2, None),
    ("behind, and a valley", {0.5: 3.1, 1.0: 3.0, 2.0: 3.1}, 2.5, None),
    ("far above, all alike", {0.5: 6.01, 1.0: 6.0, 2.0: 6.02}, 3.0, 0.125),
    ("far above, open downwards", {0.5: 6.01, 1.0: 6.0, 2.0: 9.0}, 3.0, 0.125),
    ("far above, open upwards", {0.5: 9.0, 1.0: 6.0, 2.0: 6.02}, 3.0, 8.0),
    ("far above, but it diverges on", {0.5: 9.0, 1.0: 6.0, 2.0: None}, 3.0, None),
    ("far above, less explored above", {0.25: 6.03, 0.5: 6.01, 1.0: 6.0, 2.0: 6.02}, 3.0, 8.0),
    ("all diverged", {0.5: None, 1.0: None}, 3.0, None),
    ("it ignores its rate", {0.5: 6.0, 1.0: 6.0, 2.0: 6.0}, 3.0, None),
]


@pytest.mark.parametrize(
    ("trials", "others", "expected"), [o[1:] for o in OUTWARD], ids=[o[0] for o in OUTWARD]
)
def test_arm_that_learned_at_no_lr_is_tried_farther_out(
    trials: Trials, others: float, expected: float | None
):
    assert next_outward(1.0, 2.0, trials, others) == expected


def test_a_job_that_ignores_its_rate_is_not_asked_for_ever():
    assert len(search(lambda lr: 3.0, default=1.0, factor=2.0)) == 3


@pytest.mark.parametrize("default", [1e-200, 1e-300])
def test_no_rate_of_zero_is_proposed(default: float):
    trials: Trials = {}
    while (lr := next_lr(default, 2.0, trials, 12)) is not None:
        assert lr > 0
        trials[lr] = math.log2(lr / default) ** 2


@pytest.mark.parametrize("least", [8, 12])
def test_extra_trials_are_made_near_the_best_lr(least: int):
    trials: Trials = {}
    while (lr := next_lr(1.0, 2.0, trials, least)) is not None:
        trials[lr] = math.log2(lr) ** 2
    assert len(trials) == least
    assert sum(0.5 <= lr <= 2.0 for lr in trials) == least


def test_the_best_of_trials_with_a_finite_loss_never_diverged():
    trials = search(lambda lr: None if lr > 1e-4 else lr, default=1.0, factor=2.0, most=20)
    assert trials[best_lr(trials)] is not None

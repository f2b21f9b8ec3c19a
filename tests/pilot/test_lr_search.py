"""One learning rate at a time, the same way for every arm."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.pilot.search import at_edge, best_lr, next_lr

Trials = dict[float, float | None]

STEPS: list[tuple[str, Trials, float]] = [
    ("the published default first", {}, 1.0),
    ("then one step up", {1.0: 2.0}, 2.0),
    ("up even if the default diverged", {1.0: None}, 2.0),
    ("on upward while the highest is best", {1.0: 3.0, 2.0: 2.0}, 4.0),
    ("downward if the lowest is best", {1.0: 2.0, 2.0: 3.0}, 0.5),
    ("downward from the lower of equals", {1.0: 2.0, 2.0: 2.0}, 0.5),
    ("downward if the higher diverged", {1.0: 2.0, 2.0: None}, 0.5),
    ("downward if both diverged", {1.0: None, 2.0: None}, 0.5),
    ("upward if the lower diverged", {1.0: None, 2.0: 3.0}, 4.0),
    ("halfway to the better neighbour", {1.0: 3.0, 2.0: 1.0, 4.0: 2.0}, math.sqrt(8)),
    ("halfway to the lower one", {1.0: 2.0, 2.0: 1.0, 4.0: 3.0}, math.sqrt(2)),
    ("never towards one that diverged", {1.0: 9.0, 2.0: 1.0, 4.0: None}, math.sqrt(2)),
]


@pytest.mark.parametrize(("trials", "expected"), [s[1:] for s in STEPS], ids=[s[0] for s in STEPS])
def test_the_next_trial(trials: Trials, expected: float):
    assert next_lr(1.0, 2.0, trials) == pytest.approx(expected)


@given(st.permutations([1.0, 2.0, 4.0, 8.0]))
def test_the_order_in_which_trials_finished_does_not_matter(order: list[float]):
    losses = {1.0: 4.0, 2.0: 2.0, 4.0: 3.0, 8.0: None}
    trials = {lr: losses[lr] for lr in order}
    assert next_lr(1.0, 2.0, trials) == pytest.approx(math.sqrt(8))
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
    loss: Callable[[float], float | None], rounds: int, *, default: float, factor: float
) -> Trials:
    trials: Trials = {}
    for _ in range(rounds):
        lr = next_lr(default, factor, trials)
        assert lr not in trials, f"{lr} a second time"
        trials[lr] = loss(lr)
    return trials


default_ = st.floats(1e-6, 10)
factor_ = st.floats(1.2, 10)


@given(default=default_, factor=factor_, optimum=st.floats(-4, 4), cliff=st.floats(0.5, 6))
def test_it_ends_up_within_one_step_of_the_optimum_wherever_that_is(
    default: float, factor: float, optimum: float, cliff: float
):
    def loss(lr: float) -> float | None:
        steps = math.log(lr / default) / math.log(factor)
        return None if steps >= optimum + cliff else (steps - optimum) ** 2

    trials = search(loss, 9, default=default, factor=factor)
    assert not at_edge(trials)
    assert abs(math.log(best_lr(trials) / default) / math.log(factor) - optimum) <= 1.0 + 1e-9


@given(
    losses=st.lists(st.none() | st.floats(0, 10), min_size=12, max_size=12),
    default=default_,
    factor=factor_,
)
def test_no_learning_rate_is_tried_twice_whatever_the_losses(
    losses: list[float | None], default: float, factor: float
):
    values = iter(losses)
    trials = search(lambda lr: next(values), 12, default=default, factor=factor)
    assert len(trials) == 12
    assert all(lr > 0 and math.isfinite(lr) for lr in trials)


@given(
    losses=st.lists(st.none() | st.floats(0, 10), min_size=2, max_size=10),
    default=default_,
    factor=factor_,
)
def test_each_trial_is_next_to_the_best_of_those_before(
    losses: list[float | None], default: float, factor: float
):
    values = iter(losses)
    trials = search(lambda lr: next(values), len(losses), default=default, factor=factor)
    lrs = list(trials)
    for i in range(2, len(lrs)):
        before = {lr: trials[lr] for lr in lrs[:i]}
        between = [
            lr for lr in before if min(best_lr(before), lrs[i]) < lr < max(best_lr(before), lrs[i])
        ]
        assert not between


def test_the_best_of_trials_with_a_finite_loss_never_diverged():
    trials = search(lambda lr: None if lr > 1e-4 else lr, 20, default=1.0, factor=2.0)
    assert trials[best_lr(trials)] is not None

"""The loss that is expected after k trials, and how far it may be off."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.experiment.analysis import analyse
from mars_optim.experiment.analysis.best_of import best_of, budgets, expected_best
from tests.support.designed_pilot import designed_plan, write_designed

losses = st.floats(1.0, 5.0)


@given(first=losses, rest=st.lists(losses, min_size=1, max_size=7), data=st.data())
def test_expected_lowest_is_the_mean_over_all_choices(
    first: float, rest: list[float], data: st.DataObject
):
    k = data.draw(st.integers(1, len(rest) + 1))
    wanted = np.mean([min(first, *chosen, first) for chosen in combinations(rest, k - 1)])
    assert float(expected_best(first, np.array(rest), k)) == pytest.approx(wanted, rel=1e-12)


@given(values=st.lists(losses, min_size=2, max_size=20))
def test_more_trials_never_raise_the_expected_loss(values: list[float]):
    found = [at.loss for at in best_of(values) if at.loss is not None]
    assert found[0] == pytest.approx(values[0])
    assert found[-1] == pytest.approx(min(values))
    assert all(a >= b - 1e-12 for a, b in pairwise(found))


def test_budgets_are_powers_of_two_and_all_trials():
    assert budgets(1) == (1,)
    assert budgets(16) == (1, 2, 4, 8, 16)
    assert budgets(21) == (1, 2, 4, 8, 16, 21)


def test_nothing_is_expected_where_all_of_k_trials_may_diverge():
    found = {at.k: at.loss for at in best_of([None, None, 3.0, 2.0])}
    assert found == {1: None, 2: None, 4: pytest.approx(2.0)}


def test_one_diverged_default_keeps_the_spread_finite():
    whole = best_of([None, 4.0, 3.0, 2.0])[-1]
    assert np.isfinite(whole.off).all()


def test_trials_in_turn_are_the_first_k():
    values = [3.0, 2.5, 2.7, 2.0, 2.2]
    assert [at.loss for at in best_of(values, in_turn=True)] == [3.0, 2.5, 2.0, 2.0]


def test_spread_has_no_mean_and_the_interval_holds_the_loss():
    for at in best_of([3.0, 2.5, 2.7, 2.0, 2.2, 2.9, 3.3, 2.1]):
        assert np.mean(at.off) == pytest.approx(0.0, abs=1e-12)
        low, high = at.low_high(0.95) or (0.0, 0.0)
        assert low <= at.loss <= high  # type: ignore[operator]


def test_draws_are_the_same_for_arms_with_the_same_trials():
    one, other = (best_of([3.0 + shift, 2.5 + shift, 2.7 + shift, 2.0 + shift])[-1].off
                  for shift in (0.0, 1.0))  # fmt: skip
    assert one == pytest.approx(other, abs=1e-9)


def test_an_arm_whose_rate_is_kept_is_at_no_edge(tmp_path: Path):
    plan = designed_plan("tuning.range.lr=[1, 1]", trials=6)
    out = tmp_path / "pilot"
    write_designed(out, plan)
    found = analyse(out)
    assert {trial.lr for trial in found.candidate.trials} == {plan.arm["mars-adamw"].lr}
    assert not any(arm.at_edge for arm in found.arms)

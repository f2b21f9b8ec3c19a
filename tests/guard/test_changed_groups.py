"""Parameters that an optimizer gets in a run: its guard says at once that it cannot go back."""

from __future__ import annotations

import math
from typing import Any

import pytest
from torch import nn

from mars_optim import Guard, migrate
from tests.support.run_to_guard import HISTORY, QUICK, Run, equal

CHANGED = r"has \d+ parameters in \d groups and had 4 in 2 when the guard was made"


def frozen_first() -> Run:
    """A run that trains its last layers alone."""
    run = Run()
    run.adamw = type(run.adamw)(run.net[1:].parameters(), lr=0.01, betas=(0.9, 0.95))
    run.train(run.adamw, 3)
    run.optimizer = migrate(run.adamw, gamma="auto")
    return run


def guarded(run: Run, **options: Any) -> Guard:
    given: dict[str, Any] = dict(baseline=HISTORY, settings=QUICK, step=run.step, **options)
    return Guard(run.net, run.optimizer, **given)


def unfreeze(run: Run) -> None:
    run.optimizer.add_param_group({"params": list(run.net[0].parameters())})


@pytest.mark.parametrize("in_place", [False, True])
def test_a_group_added_in_a_run_needs_a_new_guard(in_place: bool) -> None:
    run = frozen_first()
    guard = guarded(run, in_place=in_place)
    run.guarded(guard, {}, steps=20)
    unfreeze(run)
    run.train(run.optimizer)
    with pytest.raises(ValueError, match=CHANGED + r".* make a new one \(step=20\) right after"):
        guard.watch(loss=1.0, step_seconds=1.0)
    assert guard.step == 20
    guard.close()
    new = guarded(run, in_place=in_place)
    back = run.guarded(new, {33: math.nan}, steps=60)
    assert back is not None
    assert back.step == 25
    assert sum(len(group["params"]) for group in back.optimizer.param_groups) == 6
    back.optimizer.add_param_group({"params": list(nn.Linear(2, 2).parameters())})
    assert new.watch(loss=1.0) is None


def test_a_parameter_put_into_a_group_needs_a_new_guard() -> None:
    run = frozen_first()
    guard = guarded(run)
    run.guarded(guard, {}, steps=15)
    run.optimizer.param_groups[0]["params"].append(run.net[0].weight)
    with pytest.raises(ValueError, match=CHANGED):
        guard.watch(loss=1.0)


def test_an_alarm_after_a_change_of_groups_moves_nothing() -> None:
    run = frozen_first()
    guard = guarded(run)
    run.guarded(guard, {20: math.nan}, steps=20)  # read with the next step, or by flush
    unfreeze(run)
    before = run.weights()
    with pytest.raises(ValueError, match=CHANGED):
        guard.flush()
    assert equal(before, run.weights())
    assert not guard.rolled_back


def test_a_guard_resumes_with_the_groups_that_it_had() -> None:
    run = frozen_first()
    unfreeze(run)
    guard = guarded(run)
    run.guarded(guard, {}, steps=20)
    again = frozen_first()
    resumed = guarded(again)
    with pytest.raises(ValueError, match=r"had 4 groups, and this one has 2: restore the optimize"):
        resumed.load_state_dict(guard.state_dict())
    assert resumed.step == 13
    unfreeze(again)
    again.net.load_state_dict(run.net.state_dict())
    again.optimizer.load_state_dict(run.optimizer.state_dict())
    again.step = 20
    resumed.load_state_dict(guard.state_dict())
    back = again.guarded(resumed, {23: math.nan}, steps=40)
    assert back is not None
    assert back.step == 20

"""The criteria of gamma in docs/theory.md are those that its script finds, in a shorter run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from docs.figures import gamma
from mars_optim.experiment.executors.runnable import load_task
from mars_optim.experiment.plan import Plan


@pytest.mark.slow
def test_next_gradient_raises_gamma_from_0_and_lowers_it_from_1():
    plan = Plan()
    plan = replace(plan, training=replace(plan.training, steps=80))
    task = load_task(plan)
    none, all_of_it = (gamma.watch(plan, task, g) for g in (0.0, 1.0))
    assert min(none.h) > 0 > max(all_of_it.h[1:])
    assert all(0 <= g <= 1 for g in none.least_error + none.in_adams_metric)
    lines = gamma.table([none, all_of_it]).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["0", "1"]
    assert lines[2].count(" / ") == 3 * (gamma.PARTS - 1)

"""How long and how often a run is tried."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import mars_optim
from mars_optim.experiment.pilot.agenda import agenda
from mars_optim.experiment.pilot.retries import Retries, Timing
from mars_optim.experiment.plan import RunSpec
from mars_optim.experiment.plan.execution import RunningPlan
from mars_optim.experiment.records import Failure
from tests.support.pretend import DATA, Valley, carry_out, small_plan

PLAN = small_plan()
SPEC = agenda(PLAN, DATA, []).ready[0]
DIED = Failure("died", "killed")
HUNG = Failure("timed out", "too long")


def test_run_limit_is_ten_times_the_probed_time_of_all_sharers():
    tries = Retries(RunningPlan(), {SPEC.arm_name: Timing(0.5, outside=900.0)}, sharing=3)
    assert tries.limit(SPEC) == 10 * (0.5 * SPEC.steps + 900.0) * 3 + 600


def test_or_as_long_as_the_plan_says():
    tries = Retries(RunningPlan(limit_minutes=2.0), {SPEC.arm_name: Timing(0.5)}, sharing=3)
    assert tries.limit(SPEC) == 120.0


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_run_that_dies_is_retried_as_often_as_the_plan_says(retries: int):
    tries = Retries(RunningPlan(retries=retries), {}, 1)
    assert [tries.again("a", DIED) for _ in range(retries + 1)] == [True] * retries + [False]
    assert tries.given_up == {"a": DIED}
    assert tries.again("b", DIED) is (retries > 0)


@pytest.mark.parametrize(
    ("retries", "expected"), [(0, [False]), (1, [True, False]), (9, [True, False])]
)
def test_a_run_that_hangs_is_tried_again_once_at_most(retries: int, expected: list[bool]):
    tries = Retries(RunningPlan(retries=retries), {}, 1)
    assert [tries.again("a", HUNG) for _ in expected] == expected
    assert tries.given_up == {"a": HUNG}


def test_hopeless_try_is_the_last_and_one_with_progress_is_free():
    tries = Retries(RunningPlan(retries=1), {}, 1)
    further = Failure("timed out", "the queue's limit; it goes on", again="always")
    assert all(tries.again("a", further) for _ in range(9))
    assert tries.again("a", HUNG)
    assert not tries.again("b", Failure("timed out", "the queue's limit", again="never"))
    assert list(tries.given_up) == ["b"]


def tuning_of(arm: str) -> list[RunSpec]:
    """An arm's tuning runs."""
    return [s for s in carry_out(PLAN, Valley(PLAN)).purpose("tune") if s.arm_name == arm]


def ids_without(run_id: str) -> set[str]:
    """Runs that are made if one is given up; fails if the pilot does not come to an end."""
    done = []
    loss = Valley(PLAN)
    from tests.support.pretend import finish

    while not (now := agenda(PLAN, DATA, done, (), {run_id})).finished:
        assert now.ready, "nothing is ready, nothing runs, and yet it is not finished"
        done.append(finish(now.ready[0], loss(now.ready[0])))
    return {run.spec.run_id for run in done}


@pytest.mark.parametrize("trial", [0, 1, 2])
def test_arm_whose_tuning_is_given_up_is_not_compared(trial: int):
    whole = carry_out(PLAN, Valley(PLAN)).ids
    tuning = tuning_of("nadamw")
    missing = whole - ids_without(tuning[trial].run_id)
    assert len(missing) == len(tuning) - trial + 2  # its trials from there on, and two seeds
    assert all(run_id.startswith("nadamw-") for run_id in missing)


@pytest.mark.parametrize("arm", [PLAN.comparison.baseline, PLAN.comparison.candidate])
def test_nothing_is_compared_without_baseline_or_candidate(arm: str):
    others = [a for a in PLAN.arms if a != arm]
    made = ids_without(tuning_of(arm)[1].run_id)
    assert len(made) == sum(len(tuning_of(a)) for a in others) + 1
    assert all("seed0" in run_id for run_id in made)


def test_a_comparison_run_that_is_given_up_stops_no_other():
    whole = carry_out(PLAN, Valley(PLAN))
    for spec in whole.purpose("compare", "ladder"):
        assert ids_without(spec.run_id) == whole.ids - {spec.run_id}


def test_late_arm_is_tuned_like_others_and_changes_no_lr():
    loss = Valley(PLAN, {"nadamw": 3.0})
    first = carry_out(small_plan(arms=("adamw", "mars-adamw")), loss)
    later = carry_out(PLAN, loss, done=first.runs)
    assert first.ids <= later.ids
    assert {s.arm_name for s in later.purpose("tune", "compare")} == set(PLAN.arms)
    assert later.ids == carry_out(PLAN, loss).ids


def test_no_module_measures_a_duration_by_the_wall_clock():
    for path in Path(mars_optim.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) != ("time", "time"), path

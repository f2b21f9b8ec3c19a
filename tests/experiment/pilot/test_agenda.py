"""The next runs: fair to all arms, the same in any order, and an end to them."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_optim.errors import UserError
from mars_optim.experiment.analysis.rate_fit import fit_rate
from mars_optim.experiment.pilot.agenda import agenda
from mars_optim.experiment.pilot.search import best_lr, next_lr
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.arms import ARMS
from mars_optim.experiment.plan.task import GptPlan
from mars_optim.experiment.records.trials import AROUND
from tests.support.pretend import DATA, Valley, carry_out, finish, small_plan, trials_of, with_seeds

PLAN = small_plan()
ARMS_OF_PLAN = list(PLAN.arms)

doublings = st.floats(-6, 6)
places = st.fixed_dictionaries(dict.fromkeys(ARMS_OF_PLAN, doublings))
limits = st.fixed_dictionaries({}, optional=dict.fromkeys(ARMS_OF_PLAN, doublings))


@given(optimum=places, cliff=limits)
def test_every_arm_is_tuned_to_equal_resolution_or_plan_limit(
    optimum: dict[str, float], cliff: dict[str, float]
):
    trials = trials_of(PLAN, carry_out(PLAN, Valley(PLAN, optimum, cliff)))
    for arm, tried in trials.items():
        assert PLAN.tuning.trials <= len(tried) <= PLAN.tuning.max_trials
        following = next_lr(PLAN.arm[arm].lr, PLAN.tuning.factor, tried, PLAN.tuning.trials)
        assert following is None or len(tried) == PLAN.tuning.max_trials


@given(optimum=places)
def test_distance_to_the_best_lr_does_not_depend_on_the_start(
    optimum: dict[str, float],
):
    pilot = carry_out(PLAN, Valley(PLAN, optimum))
    for spec in pilot.purpose("compare"):
        doublings = math.log2(spec.lr / spec.arm.lr)
        assert abs(doublings - optimum[spec.arm_name]) < 0.13


@given(optimum=places, cliff=limits)
def test_an_arm_stops_when_it_is_tuned_whatever_the_others_need(
    optimum: dict[str, float], cliff: dict[str, float]
):
    trials = trials_of(PLAN, carry_out(PLAN, Valley(PLAN, optimum, cliff)))
    for arm, tried in trials.items():
        for most in range(PLAN.tuning.trials, len(tried)):
            first = dict(list(tried.items())[:most])
            start, factor = PLAN.arm[arm].lr, PLAN.tuning.factor
            assert next_lr(start, factor, first, PLAN.tuning.trials) is not None


@given(optimum=places, cliff=limits)
def test_comparison_uses_fitted_lr_and_never_the_tuning_seed(
    optimum: dict[str, float], cliff: dict[str, float]
):
    pilot = carry_out(PLAN, Valley(PLAN, optimum, cliff))
    trials = trials_of(PLAN, pilot)
    for spec in pilot.purpose("compare", "ladder"):
        fit = fit_rate([(lr, 0, loss) for lr, loss in trials[spec.arm_name].items()], 2.0)
        assert spec.lr == (fit.best if fit else best_lr(trials[spec.arm_name]))
        assert spec.seed in PLAN.comparison.seeds
    for spec in pilot.purpose("tune"):
        assert (spec.seed, spec.steps) == (PLAN.tuning.seed, PLAN.training.steps)


@given(
    optimum=places, cliff=limits, workers=st.integers(1, 4), order=st.randoms(use_true_random=False)
)
def test_runs_that_finish_in_any_order_lead_to_the_same_runs(
    optimum: dict[str, float], cliff: dict[str, float], workers: int, order: random.Random
):
    loss = Valley(PLAN, optimum, cliff)
    assert carry_out(PLAN, loss, workers=workers, order=order).ids == carry_out(PLAN, loss).ids


@given(optimum=places, workers=st.integers(1, 4), data=st.data())
def test_pilot_stopped_anywhere_resumes_to_the_same_runs(
    optimum: dict[str, float], workers: int, data: st.DataObject
):
    loss = Valley(PLAN, optimum)
    whole = carry_out(PLAN, loss, workers=3, order=random.Random(0))
    kept = whole.runs[: data.draw(st.integers(0, len(whole.runs)))]
    again = carry_out(PLAN, loss, workers=workers, done=kept)
    assert again.ids == whole.ids
    assert len(again.runs) == len(whole.runs)


def test_the_whole_comparison_is_run_and_nothing_else():
    pilot = carry_out(PLAN, Valley(PLAN))
    compared = {(s.arm_name, s.seed, s.steps) for s in pilot.purpose("compare")}
    ladder = {(s.arm_name, s.seed, s.steps) for s in pilot.purpose("ladder")}
    assert compared == {(arm, seed, 100) for arm in PLAN.arms for seed in (1, 2)}
    assert ladder == {("adamw", seed, steps) for steps in (50, 200) for seed in (1, 2)}
    assert len(pilot.runs) == 3 * 5 + 2 * 5


@given(optimum=places)
def test_announced_runs_and_steps_are_those_carried_out(
    optimum: dict[str, float],
):
    pilot = carry_out(PLAN, Valley(PLAN, optimum))
    assert pilot.last.planned_runs == len(pilot.runs)
    assert pilot.last.planned_steps == sum(run.spec.steps for run in pilot.runs)


def test_runs_announced_before_the_first_are_the_minimum():
    first = agenda(PLAN, DATA, [])
    assert first.planned_runs == 3 * 5 + 2 * 5
    assert first.planned_steps == 15 * 100 + 2 * (300 + 50 + 200)
    assert not first.finished


def test_a_finished_pilot_has_nothing_ready():
    pilot = carry_out(PLAN, Valley(PLAN))
    now = agenda(PLAN, DATA, pilot.runs)
    assert now.finished
    assert now.ready == ()


def test_pilot_with_runs_under_way_is_unfinished_and_waits():
    pilot = carry_out(PLAN, Valley(PLAN))
    last = pilot.runs.pop()
    now = agenda(PLAN, DATA, pilot.runs, [last.spec])
    assert not now.finished
    assert now.ready == ()


def test_arm_has_one_trial_at_a_time_as_the_next_depends_on_it():
    ready = agenda(PLAN, DATA, []).ready
    assert [s.arm_name for s in ready] == ARMS_OF_PLAN
    now = agenda(PLAN, DATA, [], ready[:2])
    assert [s.arm_name for s in now.ready] == ARMS_OF_PLAN[2:]


def test_the_arm_with_the_fewest_trials_is_served_first():
    done = [finish(s, 1.0) for s in agenda(PLAN, DATA, []).ready[:1]]
    assert agenda(PLAN, DATA, done).ready[-1].arm_name == done[0].spec.arm_name


def test_no_comparison_starts_before_every_arm_is_tuned():
    pilot = carry_out(PLAN, Valley(PLAN), workers=4, order=random.Random(1))
    stages = [run.spec.purpose for run in pilot.runs]
    tuned = 15
    assert set(stages[:tuned]) == {"tune"}
    assert "tune" not in stages[tuned:]


def test_comparison_goes_by_seed_so_a_stop_leaves_whole_pairs():
    plan = small_plan(seeds=(5, 3, 9))
    pilot = carry_out(plan, Valley(plan))
    assert [s.seed for s in pilot.purpose("compare", "ladder")] == [5] * 5 + [3] * 5 + [9] * 5


@given(optimum=places, more=st.lists(st.integers(3, 50), min_size=1, max_size=3, unique=True))
def test_added_seeds_only_add_runs(optimum: dict[str, float], more: list[int]):
    loss = Valley(PLAN, optimum)
    before = carry_out(PLAN, loss)
    after = carry_out(with_seeds(PLAN, (1, 2, *more)), loss, done=before.runs)
    added = [run.spec for run in after.runs[len(before.runs) :]]
    assert after.runs[: len(before.runs)] == before.runs
    assert {s.seed for s in added} == set(more)
    assert len(added) == 5 * len(more)


def test_runs_on_other_data_and_unfinished_ones_do_not_count():
    pilot = carry_out(PLAN, Valley(PLAN))
    others = [replace(run, spec=replace(run.spec, data="other")) for run in pilot.runs]
    unfinished = [replace(run, outcome=None) for run in pilot.runs]
    assert agenda(PLAN, DATA, [*others, *unfinished]) == agenda(PLAN, DATA, [])


def test_runs_of_an_arm_that_the_plan_does_not_have_do_not_count():
    spec = agenda(PLAN, DATA, []).ready[0]
    stray = finish(replace(spec, arm_name="lion", arm=ARMS["lion"]), 1.0)
    assert agenda(PLAN, DATA, [stray]) == agenda(PLAN, DATA, [])


@pytest.mark.parametrize("options", [dict(steps=200), dict(task=GptPlan(width=32))], ids=str)
def test_runs_under_other_settings_do_not_count(options: dict[str, Any]):
    pilot = carry_out(PLAN, Valley(PLAN))
    other = small_plan(**options)
    assert agenda(other, DATA, pilot.runs) == agenda(other, DATA, [])


@pytest.mark.parametrize("cliff", [-20.0, 0.0, 0.5])
def test_a_pilot_in_which_runs_diverge_comes_to_an_end(cliff: float):
    loss = Valley(PLAN, cliff=dict.fromkeys(PLAN.arms, cliff))
    pilot = carry_out(PLAN, loss)
    assert pilot.last.finished
    trials = len(trials_of(PLAN, pilot)["adamw"])
    assert (trials == PLAN.tuning.max_trials) is (cliff == -20.0)


@pytest.mark.slow
def test_a_pilot_of_all_arms_comes_to_an_end():
    plan = Plan(arms=tuple(ARMS), tuning=PLAN.tuning)
    pilot = carry_out(plan, Valley(plan, {"lion": 5.0}), workers=4, order=random.Random(2))
    counts = {arm: len(t) for arm, t in trials_of(plan, pilot).items()}
    assert {n for arm, n in counts.items() if arm != "lion"} == {5}
    assert counts["lion"] > 5  # it is five steps away
    assert pilot.last.planned_runs == len(pilot.ids)


@pytest.mark.parametrize(
    "options",
    [
        dict(ladder=(0.5, 0.5, 2.0)),
        dict(ladder=(0.5, 1.0, 2.0)),
        dict(steps=10, ladder=(0.5, 0.51, 2.0)),
        dict(steps=10, ladder=(0.96, 2.0)),
        dict(steps=10, ladder=(0.5, 1.04)),
    ],
    ids=str,
)
def test_budgets_of_equally_many_steps_are_refused_or_run_once(options: dict[str, Any]):
    try:
        plan = small_plan(**options)
    except UserError:
        return
    pilot = carry_out(plan, Valley(plan), workers=4, order=random.Random(3))
    assert len(pilot.ids) == len(pilot.runs) == pilot.last.planned_runs


@pytest.mark.parametrize("trials", [1, 2, 12, 70])
def test_tuning_ends_with_as_many_trials_as_the_plan_asks_for(trials: int):
    try:
        plan = small_plan(arms=("adamw", "mars-adamw"), trials=trials, max_trials=trials)
    except UserError:
        assert trials > 64
        return
    pilot = carry_out(plan, Valley(plan))
    assert [len(t) for t in trials_of(plan, pilot).values()] == [trials] * 2


def test_further_tuning_seed_repeats_the_trials_around_each_best():
    plan = small_plan(more_seeds=(7,))
    pilot = carry_out(plan, Valley(plan, dict.fromkeys(plan.arms, 2.3)))
    for arm in plan.arms:
        again = [s.lr for s in pilot.purpose("tune") if (s.arm_name, s.seed) == (arm, 7)]
        assert len(again) == AROUND
        assert set(again) <= set(trials_of(plan, pilot)[arm])
    assert pilot.last.planned_runs == len(pilot.runs)


def test_tuning_seed_added_later_repeats_no_compared_run():
    noisy = random.Random(0)
    valley = Valley(PLAN)
    losses: dict[str, float] = {}

    def loss(spec: RunSpec) -> float:
        return losses.setdefault(spec.run_id, (valley(spec) or 0.0) + noisy.gauss(0.0, 0.05))

    before = carry_out(PLAN, loss)
    plan = replace(PLAN, tuning=replace(PLAN.tuning, more_seeds=(8,)))
    after = carry_out(plan, loss, done=before.runs)
    added = [run.spec for run in after.runs[len(before.runs) :]]
    assert {(s.purpose, s.seed) for s in added} == {("tune", 8)}
    assert len(added) == AROUND * len(plan.arms)


@pytest.mark.slow
@given(workers=st.integers(1, 4), order=st.randoms(use_true_random=False))
@settings(max_examples=20)
def test_arm_stuck_at_all_lrs_goes_downwards_in_any_order(workers: int, order: random.Random):
    def loss(spec: RunSpec) -> float | None:
        doublings = math.log2(spec.lr / spec.arm.lr)
        if spec.arm_name == "mars-adamw":
            if doublings > -3:
                return 9.0 + 0.01 * doublings**2 + 0.001 * spec.seed
            doublings += 5
        return 3.0 + 0.1 * doublings**2 + 0.01 * spec.seed - 0.1 * math.log(spec.steps)

    pilot = carry_out(PLAN, loss, workers=workers, order=order)
    used = {s.lr / s.arm.lr for s in pilot.purpose("compare") if s.arm_name == "mars-adamw"}
    assert len(used) == 1
    assert abs(math.log2(used.pop()) + 5) < 0.2
    assert pilot.ids == carry_out(PLAN, loss).ids

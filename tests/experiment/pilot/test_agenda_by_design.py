"""More than the rate is tuned: equally many trials, the same places, the same in any order."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.analysis.design import points, trials
from mars_optim.experiment.pilot.agenda import agenda
from mars_optim.experiment.pilot.price import price
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.arms import ARMS
from mars_optim.experiment.plan.tuning import Point, place_of, value_at
from tests.support.designed_pilot import designed_loss, designed_plan
from tests.support.pretend import DATA, Pilot, Valley, carry_out, finish, small_plan

HALTON = designed_plan(trials=6)
TPE = designed_plan('tuning.sampler="tpe"', trials=5)
SAMPLERS = pytest.mark.parametrize("plan", [HALTON, TPE], ids=["halton", "tpe"])


def loss_of(plan: Plan, spec: RunSpec) -> float | None:
    return designed_loss(plan, spec)


def done(plan: Plan, **options: object) -> Pilot:
    return carry_out(plan, lambda spec: loss_of(plan, spec), **options)  # type: ignore[arg-type]


@pytest.mark.slow_but_one
@SAMPLERS
def test_every_arm_has_as_many_trials_as_the_plan_says(plan: Plan):
    pilot = done(plan)
    for arm in plan.arms:
        tuned = [s for s in pilot.purpose("tune") if s.arm_name == arm]
        assert len(tuned) == plan.tuning.trials
        assert plan.arm[arm] in [s.arm for s in tuned if s.lr == plan.arm[arm].lr]


def test_arms_share_the_places_of_their_trials():
    places = []
    for arm in HALTON.arms:
        own = HALTON.arm[arm]
        made = points(HALTON.tuning, arm, own)
        assert (made[0].arm, made[0].lr) == (own, own.lr)
        places.append([place_of((0.125, 8.0), at.lr / own.lr) for at in made])
    for other in places[1:]:
        assert other == pytest.approx(places[0], abs=1e-3)


def test_another_tuning_seed_is_another_design():
    other = replace(HALTON.tuning, seed=7)
    first, second = (points(t, "adamw", HALTON.arm["adamw"]) for t in (HALTON.tuning, other))
    assert first[0] == second[0]
    assert first[1] != second[1]


@pytest.mark.slow
@SAMPLERS
def test_order_in_which_runs_finish_does_not_matter(plan: Plan):
    wanted = done(plan)
    for seed in range(2):
        assert done(plan, workers=5, order=random.Random(seed)).ids == wanted.ids


@pytest.mark.slow
@SAMPLERS
def test_a_stopped_pilot_goes_on_to_the_same_runs(plan: Plan):
    wanted = done(plan)
    for kept in (12,):
        some = random.Random(kept).sample(wanted.runs[:kept], kept)
        assert done(plan, done=some).ids == wanted.ids


@pytest.mark.slow
@SAMPLERS
def test_the_trial_of_the_lowest_loss_is_compared(plan: Plan):
    pilot = done(plan)
    for arm in plan.arms:
        mine = [r for r in pilot.runs if r.spec.arm_name == arm and r.spec.purpose == "tune"]
        best = min(mine, key=lambda r: math.inf if r.final_loss is None else r.final_loss)
        compared = {(s.arm, s.lr) for s in pilot.purpose("compare") if s.arm_name == arm}
        assert compared == {(best.spec.arm, best.spec.lr)}


@pytest.mark.parametrize("place", [-1.5, 1.5], ids=["low", "high"])
def test_tpe_looks_at_the_losses(place: float):
    tuning = designed_plan('tuning.sampler="tpe"', trials=20).tuning
    arm, losses = ARMS["adamw"], dict[Point, float | None]()
    while following := trials(tuning, "adamw", arm, losses)[1]:
        for at in following:
            losses[at] = (math.log2(at.lr / arm.lr) - place) ** 2
    near = [abs(math.log2(at.lr / arm.lr) - place) < 1.0 for at in losses]
    assert len(near) == 20
    assert sum(near[10:]) >= 5  # a third of the range: 3 of 10 by chance


def test_arm_that_always_diverged_is_compared_at_default():
    pilot = carry_out(HALTON, lambda s: None if s.arm_name == "nadamw" else loss_of(HALTON, s))
    compared = {(s.arm, s.lr) for s in pilot.purpose("compare") if s.arm_name == "nadamw"}
    assert compared == {(HALTON.arm["nadamw"], HALTON.arm["nadamw"].lr)}


def test_an_arm_whose_trial_was_given_up_is_left_out():
    first = agenda(HALTON, DATA, []).ready
    lost = next(s for s in first if s.arm_name == "nadamw")
    runs = [finish(s, loss_of(HALTON, s)) for s in first if s.run_id != lost.run_id]
    following = agenda(HALTON, DATA, runs, given_up=[lost.run_id]).ready
    assert {s.arm_name for s in following} == {"adamw", "mars-adamw"}
    assert {s.purpose for s in following} == {"compare", "ladder"}


def test_what_began_to_be_compared_stays_whatever_else_finishes():
    pilot = done(HALTON)
    runs = [r for r in pilot.runs if r.spec.purpose == "tune"]
    compared = next(r for r in pilot.runs if r.spec.purpose == "ladder")
    lower = [replace(runs[0], outcome=replace(runs[0].outcome, final_loss=0.1))]  # type: ignore[type-var]
    now = agenda(HALTON, DATA, [*lower, *runs[1:], compared])
    adamw = {(s.arm, s.lr) for s in now.ready if s.arm_name == "adamw"}
    assert adamw == {(compared.spec.arm, compared.spec.lr)}


def test_price_of_a_design_is_known_before():
    found = price(HALTON, None, workers=1)
    assert found.runs[0] == found.runs[1] == len(done(HALTON).runs)


def test_rungs_have_the_rate_that_moves_with_the_budget():
    plan = designed_plan("comparison.lr_exponent=-0.5", trials=8)
    pilot = done(plan)
    unit = {s.lr for s in pilot.purpose("compare") if s.arm_name == "adamw"}
    assert len(unit) == 1
    lr = unit.pop()
    assert unit.union(s.lr for s in pilot.purpose("compare") if s.arm_name == "adamw") == {lr}
    for spec in pilot.purpose("ladder"):
        assert spec.lr == pytest.approx(lr * (spec.steps / 1000) ** -0.5)
        assert value_at_ratio(spec) == pytest.approx(1.0)


def value_at_ratio(spec: RunSpec) -> float:
    return value_at(Point(spec.arm, spec.lr), "lr_1d") / spec.lr


@pytest.mark.parametrize("plan", [HALTON, designed_plan(trials=5, over='["lr"]')],
                         ids=["design", "rate"])  # fmt: skip
def test_a_ladder_that_began_goes_on_at_the_same_rates(plan: Plan):
    plan = replace(plan, comparison=replace(plan.comparison, lr_exponent=-0.35))
    wanted = done(plan)
    first = next(i for i, r in enumerate(wanted.runs) if r.spec.purpose == "ladder")
    assert done(plan, done=wanted.runs[: first + 1]).ids == wanted.ids


def test_without_an_exponent_every_rung_has_the_tuned_rate():
    pilot = done(designed_plan(trials=5, over='["lr"]'))
    rates = {s.lr for s in pilot.purpose("ladder", "compare") if s.arm_name == "adamw"}
    assert len(rates) == 1


def test_runs_along_another_rate_exponent_are_named_not_guessed():
    plan = small_plan()
    other = replace(plan, comparison=replace(plan.comparison, lr_exponent=-0.35))
    runs = carry_out(other, Valley(other)).runs
    with pytest.raises(UserError, match=r"adamw has comparison runs of several learning rates"):
        agenda(plan, DATA, runs)


def test_an_agenda_asked_again_samples_no_trial_again(monkeypatch: pytest.MonkeyPatch):
    runs = done(TPE).runs[:5]
    wanted = agenda(TPE, DATA, runs).ready
    monkeypatch.setattr("optuna.create_study", pytest.fail)
    assert agenda(TPE, DATA, list(reversed(runs))).ready == wanted

"""The agenda of a pilot that saves: other arms after a go only, and the built-in plan."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.analysis.arm_results import arm_results
from mars_optim.experiment.analysis.comparison import comparison
from mars_optim.experiment.analysis.verdict import decide
from mars_optim.experiment.pilot.agenda import agenda
from mars_optim.experiment.pilot.price import price
from mars_optim.experiment.pilot.run import LATER
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.arms import ARMS
from mars_optim.experiment.plan.decision import DecisionPlan
from mars_optim.experiment.plan.plan import SensitivityPlan
from mars_optim.experiment.plan.plan_file import BUILT_IN, built_in_plan, make_plan, overrides
from tests.support.pretend import DATA, Pilot, Valley, carry_out, finish, small_plan

EVERY = DecisionPlan(looks="every-pair")
SEEDS = tuple(range(1, 7))


def cheap(decision: DecisionPlan = EVERY) -> Plan:
    plan = small_plan(seeds=SEEDS, decision=decision)
    return replace(plan, comparison=replace(plan.comparison, others="after-go"))


class World(Valley):
    """Runs with a gain of the candidate in nats (0.1 a unit of log tokens), and noise."""

    gain, noise = 0.0, 1e-4

    def __call__(self, spec: RunSpec) -> float | None:
        loss = super().__call__(spec)
        assert loss is not None
        gain = self.gain if spec.arm_name == self.plan.comparison.candidate else 0.0
        noise = random.Random(spec.run_id).gauss(0.0, self.noise)
        return loss - gain + noise


def run(plan: Plan, *, gain: float) -> Pilot:
    world = World(plan)
    world.gain = gain
    return carry_out(plan, world)


def arms_of(pilot: Pilot) -> set[str]:
    return {run.spec.arm_name for run in pilot.runs}


def test_other_arms_are_not_run_after_a_no_go():
    pilot = run(cheap(), gain=-0.05)
    assert arms_of(pilot) == {"adamw", "mars-adamw"}


def test_other_arms_are_tuned_and_compared_after_a_go():
    pilot = run(cheap(), gain=0.05)
    control = [r.spec for r in pilot.runs if r.spec.arm_name == "nadamw"]
    assert {spec.purpose for spec in control} == {"tune", "compare"}
    compared = {spec.seed for spec in control if spec.purpose == "compare"}
    assert compared == {s.seed for s in pilot.purpose("compare") if s.arm_name == "adamw"}


def test_an_arm_that_was_not_run_is_neither_missing_nor_shown():
    plan = cheap()
    pilot = run(plan, gain=-0.05)
    at = comparison(plan, plan.sizes()[0], pilot.runs)
    assert at.missing == 0
    assert set(arm_results(at, {})) == {"adamw", "mars-adamw"}


def test_a_stopped_cheap_pilot_goes_on_to_the_same_runs():
    plan = cheap()
    world = World(plan)
    world.gain = 0.05
    whole = carry_out(plan, world)
    for stop in (3, len(whole.runs) // 2, len(whole.runs) - 2):
        half = [finish(r.spec, world(r.spec)) for r in whole.runs[:stop]]
        assert carry_out(plan, world, done=half).ids == whole.ids


def test_the_least_price_has_no_run_that_only_a_go_brings():
    plan = cheap()
    found = price(plan, None, workers=1)
    least = {(i.purpose, i.arm): i.runs[0] for i in found.items}
    assert least["tune", "nadamw"] == least["compare", "nadamw"] == 0
    assert least["tune", "adamw"] == 5
    assert least["compare", "adamw"] == 3


def test_what_only_the_built_in_plan_forbids_is_said_so():
    trunk = ("training.trunk=true", "training.decay=wsd")
    with pytest.raises(UserError) as told:
        built_in_plan(trunk)
    assert "the built-in plan has" in str(told.value)
    assert "comparison.ladder_seeds = 1 and comparison.rungs = 'as-read' and" in str(told.value)
    back = ("ladder_seeds=0", "rungs=always", "trials_pair=false")
    for key in back:
        assert f"comparison.{key}" in str(told.value).replace(" = ", "=").replace("'", "")
    assert built_in_plan((*trunk, *(f"comparison.{key}" for key in back))).training.trunk


def test_built_in_plan_may_be_judged_by_a_target():
    plan = built_in_plan(("decision.target=2.0", "training.evaluations=50"))
    assert (plan.decision.target, plan.decision.looks) == (2.0, "every-pair")


def test_built_in_plan_keeps_its_mistakes_short():
    with pytest.raises(UserError) as told:
        built_in_plan(("training.steps=4",))
    assert "built-in plan" not in str(told.value)


def test_built_in_plan_looks_at_every_pair_and_saves():
    plan = built_in_plan()
    starts = {name: {"lr": 0.012} for name in ("adamw", "nadamw")}
    assert plan == make_plan({**BUILT_IN, "arm": starts})
    assert plan.decision.looks == "every-pair"
    assert plan.comparison.others == "after-go"


@pytest.mark.parametrize("arm", ["adamw", "nadamw"])
@pytest.mark.parametrize("width", [64, 128, 768])
def test_the_built_in_start_is_the_published_one_carried(arm: str, width: int):
    text = (f"task.width={width}", "task.heads=2")
    assert built_in_plan(text).arm[arm].lr == pytest.approx(ARMS[arm].lr * 768 / width)
    assert built_in_plan((*text, f"arm.{arm}.lr=2e-3")).arm[arm].lr == 2e-3
    for sets in (text, (*text, f"arm.{arm}.lr=0.012"), (*text, f"arm.{arm}.lr=1e-3")):
        plan = built_in_plan(sets)
        assert built_in_plan(tuple(overrides(plan))) == plan


def test_other_tasks_start_at_the_published_rates():
    plan = built_in_plan(('task.kind="images"', 'task.corpus="pictures"'))
    assert {name: plan.arm[name].lr for name in plan.arms} == {n: ARMS[n].lr for n in plan.arms}
    assert built_in_plan(tuple(overrides(plan))) == plan


def test_two_seeds_are_too_few_to_look_at_every_pair():
    with pytest.raises(UserError, match="at least 3 seeds") as told:
        built_in_plan(("comparison.seeds=[1, 2]",))
    assert "decision.looks = 'once'" in str(told.value)
    assert built_in_plan(("comparison.seeds=[1, 2]", "decision.looks=once")).comparison.seeds


def test_a_plan_of_one_look_waits_for_its_go_too():
    assert arms_of(run(cheap(DecisionPlan()), gain=-0.05)) == {"adamw", "mars-adamw"}
    assert "nadamw" in arms_of(run(cheap(DecisionPlan()), gain=0.05))


def test_with_trunks_the_candidate_may_have_no_ladder():
    plan = make_plan(
        {
            "training": {"decay": "wsd", "trunk": True},
            "comparison": {"candidate_ladder": False},
        }
    )
    assert plan.rungs("mars-adamw") == (1.0,)
    assert plan.rungs("adamw") == (1.0, 0.5, 0.75, 1.5)
    assert not plan.both_ladders


def test_sensitivity_is_run_without_a_go():
    plan = replace(cheap(), sensitivity=SensitivityPlan(gammas=(0.0,)))
    pilot = run(plan, gain=-0.05)
    assert pilot.purpose("sensitivity")
    assert len(pilot.runs) == pilot.last.planned_runs
    assert "nadamw" not in arms_of(pilot)


def test_no_control_is_run_while_a_judged_run_is_missing():
    plan = cheap()
    world = World(plan)
    world.gain = 0.05
    whole = carry_out(plan, world)
    lost = next(s for s in whole.purpose("ladder") if (s.seed, s.steps) == (3, 50))
    kept = [
        r
        for r in whole.runs
        if r.spec.arm_name in plan.comparison.judged and r.spec.run_id != lost.run_id
    ]
    now = agenda(plan, DATA, kept, (), {lost.run_id})
    assert "nadamw" not in {spec.arm_name for spec in now.ready}


def test_a_control_far_below_does_not_take_back_a_go():
    class Deep(World):
        def __call__(self, spec: RunSpec) -> float | None:
            loss = super().__call__(spec)
            assert loss is not None
            return loss - 3.0 * (spec.arm_name == "nadamw")

    plan = cheap()
    world = Deep(plan)
    world.gain = 0.05
    pilot = carry_out(plan, world)
    assert "nadamw" in arms_of(pilot)
    at = comparison(plan, plan.sizes()[0], pilot.runs)
    arms = arm_results(at, {})
    assert decide(plan, arms["adamw"], arms["mars-adamw"], at.open).decision == "go"


def test_others_may_be_asked_for_in_a_begun_pilot():
    assert "comparison.others" in LATER
    pilot = run(cheap(), gain=-0.05)
    plan = cheap()
    always = replace(plan, comparison=replace(plan.comparison, others="always"))
    world = World(always)
    world.gain = -0.05
    assert "nadamw" in arms_of(carry_out(always, world, done=pilot.runs))


def test_no_pair_is_added_for_a_candidate_that_was_given_up():
    plan = cheap()
    world = World(plan)
    whole = carry_out(plan, world)
    lost = {s.run_id for s in whole.purpose("compare") if s.arm_name == "mars-adamw"}
    kept = [r for r in whole.runs if r.spec.run_id not in lost]
    now = agenda(plan, DATA, kept, (), lost)
    assert now.finished

"""Rungs where a loss is read: which are run, what they cost, and what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.simulated_pilots import made_by
from mars_optim.errors import UserError
from mars_optim.experiment.analysis.arm_results import arm_results
from mars_optim.experiment.analysis.comparison import comparison
from mars_optim.experiment.analysis.verdict import decide
from mars_optim.experiment.pilot.price import price
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.decision import DecisionPlan
from mars_optim.experiment.plan.plan_file import make_plan
from mars_optim.experiment.records import Run
from mars_optim.experiment.records.metric import judged
from tests.support.pretend import Pilot, Valley, carry_out, finish, small_plan

SEEDS = (1, 2, 3, 4)


def as_read(ladder: tuple[float, ...] = (0.25, 0.5, 2.0), **options: object) -> Plan:
    plan = small_plan(
        arms=("adamw", "mars-adamw"),
        seeds=SEEDS,
        ladder=ladder,
        decision=DecisionPlan(looks="every-pair"),
    )
    return replace(plan, comparison=replace(plan.comparison, rungs="as-read", **options))


def run(plan: Plan, *better: float) -> Pilot:
    """A pilot whose candidate ends so much below the baseline, by seed."""
    valley = Valley(plan)

    def loss(spec: RunSpec) -> float:
        ended = valley(spec)
        assert ended is not None
        gain = better[(spec.seed - 1) % len(better)] if spec.arm_name == "mars-adamw" else 0.0
        return ended - gain

    return carry_out(plan, loss)


def budgets(pilot: Pilot) -> set[float]:
    return {spec.steps / 100 for spec in pilot.purpose("ladder")}


@pytest.mark.parametrize(
    ("better", "expected"),
    [
        ((0.02, 0.021), {2.0}),
        ((-0.02, -0.021), {0.25, 0.5}),
        ((0.02, -0.02), {0.25, 0.5, 2.0}),
    ],
    ids=["below the baseline", "above it", "both"],
)
def test_only_rungs_between_which_a_loss_is_read_are_run(
    better: tuple[float, ...], expected: set[float]
):
    assert budgets(run(as_read(), *better)) == expected


@pytest.mark.parametrize("few", [0, 1, 4])
def test_every_pair_is_read_and_nothing_is_missing(few: int):
    plan = as_read(ladder_seeds=few)
    pilot = run(plan, 0.02, 0.021, 0.019, 0.02)
    at = comparison(plan, plan.sizes()[0], pilot.runs)
    found = arm_results(at, {})["mars-adamw"]
    assert at.missing == at.open == 0
    with_rungs = {spec.seed for spec in pilot.purpose("ladder")}
    assert with_rungs == {s.seed for s in found.seeds if s.seed in plan.comparison.with_rungs}
    assert found.bounds == set()
    assert {s.seed for s in found.seeds} == {spec.seed for spec in pilot.purpose("compare")}
    assert None not in [s.log_ratio for s in found.seeds]


def test_the_whole_ladder_may_be_asked_for_later():
    plan = as_read()
    first = run(plan, 0.02, 0.021)
    whole = replace(plan, comparison=replace(plan.comparison, rungs="always"))
    after = carry_out(whole, Valley(whole), done=first.runs)
    assert budgets(after) == {0.25, 0.5, 2.0}
    assert first.ids < after.ids


def test_the_least_price_has_the_fewer_rungs():
    (item,) = [i for i in price(as_read(), None, workers=1).items if i.purpose == "ladder"]
    assert item.runs == (3, 4 * 3)
    assert item.steps == (3 * 200, 4 * (25 + 50 + 200))


def test_trunks_have_all_their_rungs():
    data = {
        "comparison": {"rungs": "as-read", "trials_pair": True},
        "training": {"trunk": True, "decay": "wsd"},
    }
    told = r"rungs = 'as-read' and comparison.trials_pair = true do not go with training.trunk"
    with pytest.raises(UserError, match=told):
        make_plan(data)


@pytest.mark.parametrize("lost", ["ladder", "compare"])
def test_a_lost_ladder_ends_the_pilot_and_tells_the_way_out(lost: str):
    plan = as_read(ladder_seeds=1)
    valley = Valley(plan)

    def loss(spec: RunSpec) -> float | None:
        if (spec.arm_name, spec.seed, spec.purpose) == ("adamw", 1, lost):
            return None
        ended = valley(spec)
        assert ended is not None
        return ended - (0.02 + 1e-4 * spec.seed) * (spec.arm_name == "mars-adamw")

    pilot = carry_out(plan, loss)
    at = comparison(plan, plan.sizes()[0], pilot.runs)
    arms = arm_results(at, {})
    verdict = decide(plan, arms["adamw"], arms["mars-adamw"], at.open)
    assert verdict.decision == "not-enough-runs"
    assert {spec.seed for spec in pilot.purpose("compare")} == {1, 2, 3}
    if lost == "ladder":
        assert "reason.ladder-lost" in {reason.code for reason in verdict.reasons}
    more = replace(plan, comparison=replace(plan.comparison, ladder_seeds=2))
    after = carry_out(more, loss, done=pilot.runs)
    found = arm_results(comparison(more, more.sizes()[0], after.runs), {})["mars-adamw"]
    assert any(s.reading for s in found.seeds)


def test_rungs_follow_the_metric_that_decides():
    decision = DecisionPlan(looks="every-pair", metric="accuracy", direction="up")
    pretended = as_read(ladder_seeds=1)
    object.__setattr__(pretended, "decision", decision)  # the task writes no accuracy
    valley = Valley(pretended)

    def run(spec: RunSpec) -> Run:
        ended = valley(spec)
        assert ended is not None
        candidate = spec.arm_name == "mars-adamw"
        done = finish(spec, ended - 0.05 * candidate)  # the loss is better, the accuracy worse
        score = 1.0 - 0.1 * ended - (0.002 + 1e-5 * spec.seed) * candidate
        assert done.outcome is not None
        return replace(done, outcome=replace(done.outcome, scores={"accuracy": score}))

    runs = made_by(pretended, run)
    assert {r.spec.steps / 100 for r in runs if r.spec.purpose == "ladder"} == {0.25, 0.5}
    judged_runs = [judged(r, decision) for r in runs]
    assert comparison(pretended, pretended.sizes()[0], judged_runs).missing == 0

"""Rungs where a loss is read: which are run, what they cost, and what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.analysis.arm_results import arm_results
from mars_optim.experiment.analysis.comparison import comparison
from mars_optim.experiment.pilot.price import price
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.decision import DecisionPlan
from mars_optim.experiment.plan.plan_file import make_plan
from tests.support.pretend import Pilot, Valley, carry_out, small_plan

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


def test_every_pair_is_read_and_nothing_is_missing():
    plan = as_read(ladder_seeds=1)
    pilot = run(plan, 0.02, 0.021, 0.019, 0.02)
    at = comparison(plan, plan.sizes()[0], pilot.runs)
    found = arm_results(at, {})["mars-adamw"]
    assert at.missing == at.open == 0
    assert {spec.seed for spec in pilot.purpose("ladder")} == {1}
    assert found.bounds == set()
    assert None not in [s.log_ratio for s in found.seeds]


def test_the_whole_ladder_may_be_asked_for_later():
    plan = as_read()
    first = run(plan, 0.02, 0.021)
    whole = replace(plan, comparison=replace(plan.comparison, rungs="always"))
    after = carry_out(whole, Valley(whole), done=first.runs)
    assert budgets(after) == {0.25, 0.5, 2.0}
    assert first.ids < after.ids


def test_the_least_price_has_the_rungs_of_the_cheaper_side():
    (item,) = [i for i in price(as_read(), None, workers=1).items if i.purpose == "ladder"]
    assert item.steps == (3 * (25 + 50), 4 * (25 + 50 + 200))


def test_trunks_have_all_their_rungs():
    data = {
        "comparison": {"rungs": "as-read", "trials_pair": True},
        "training": {"trunk": True, "decay": "wsd"},
    }
    told = r"rungs = 'as-read' and comparison.trials_pair = true do not go with training.trunk"
    with pytest.raises(UserError, match=told):
        make_plan(data)

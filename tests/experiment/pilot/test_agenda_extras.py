"""Other sizes and the sensitivity: more of the same, and nothing that was there changes."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_optim.experiment.pilot.agenda import agenda, tuning_trials
from mars_optim.experiment.plan.plan import SensitivityPlan
from mars_optim.experiment.plan.sizes import SizePlan
from tests.support.pretend import DATA, Valley, carry_out, small_plan

PLAN = small_plan()
WIDER = replace(PLAN, scale={"wide": SizePlan(width=128), "long": SizePlan(steps=300)})
DRAWN = replace(PLAN, sensitivity=SensitivityPlan(gammas=(0.0125, 0.05), factors=(0.5, 1.0, 3.0)))
BOTH = replace(WIDER, sensitivity=DRAWN.sensitivity)


def test_every_size_is_tuned_and_compared_like_the_plans_own():
    pilot = carry_out(WIDER, Valley(WIDER, {"mars-adamw": 1.5}))
    for size in WIDER.sizes():
        specs = [r.spec for r in pilot.runs if r.spec.task == size.task]
        specs = [s for s in specs if s.training == size.training]
        counts = Counter((s.purpose, s.arm_name) for s in specs)
        assert all(counts["tune", arm] >= 5 for arm in size.arms)
        assert all(counts["compare", arm] == 2 for arm in size.arms)
        assert counts["ladder", "adamw"] == 4
        assert {s.steps for s in specs if s.purpose == "ladder"} == {size.steps(0.5), size.steps(2)}


def test_each_size_has_a_learning_rate_of_its_own():
    class Shrinking(Valley):
        def __call__(self, spec):  # type: ignore[no-untyped-def]
            self.optimum = dict.fromkeys(PLAN.arms, -2.0 if spec.task.width == 128 else 0.0)
            return super().__call__(spec)

    pilot = carry_out(WIDER, Shrinking(WIDER))
    rates = {
        spec.task.width: spec.lr for spec in pilot.purpose("compare") if spec.arm_name == "adamw"
    }
    assert rates[128] < rates[64] / 2


@pytest.mark.slow
@pytest.mark.parametrize("plan", [WIDER, DRAWN, BOTH], ids=["sizes", "sensitivity", "both"])
def test_what_is_added_leaves_the_plans_own_runs_as_they_are(plan):  # type: ignore[no-untyped-def]
    alone = carry_out(PLAN, Valley(PLAN))
    assert alone.ids < carry_out(plan, Valley(plan)).ids
    again = carry_out(plan, Valley(plan), done=alone.runs)
    assert again.ids == carry_out(plan, Valley(plan)).ids


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(workers=st.integers(1, 4), order=st.randoms(use_true_random=False), keep=st.integers(0, 60))
def test_pilot_stopped_anywhere_in_any_order_ends_with_same_runs(
    workers: int, order: random.Random, keep: int
):
    whole = carry_out(BOTH, Valley(BOTH), workers=workers, order=order)
    assert whole.ids == carry_out(BOTH, Valley(BOTH)).ids
    again = carry_out(BOTH, Valley(BOTH), done=whole.runs[:keep])
    assert again.ids == whole.ids
    assert again.last.planned_runs == len(whole.ids)
    assert again.last.planned_steps == sum(r.spec.steps for r in whole.runs)


def test_sensitivity_lines_have_equal_factors_and_repeat_no_run():
    pilot = carry_out(DRAWN, Valley(DRAWN))
    best = {s.arm_name: s.lr for s in pilot.purpose("compare")}
    lines: dict[tuple[str, float], set[float]] = {}
    for run in pilot.runs:
        spec = run.spec
        if spec.purpose in ("tune", "sensitivity") and spec.arm_name != "nadamw":
            key = (spec.arm_name, spec.arm.gamma)
            lines.setdefault(key, set()).add(round(spec.lr / best[spec.arm_name], 6))
    assert set(lines) == {("adamw", 0.0), *(("mars-adamw", g) for g in (0.0125, 0.025, 0.05))}
    for factors in lines.values():
        assert all(any(f == pytest.approx(w, rel=1e-4) for f in factors) for w in (0.5, 1.0, 3.0))
    assert {s.seed for s in pilot.purpose("sensitivity")} == {DRAWN.tuning.seed}
    own = [s for s in pilot.purpose("sensitivity") if s.arm == DRAWN.arm[s.arm_name]]
    tuned = {r.spec.run_id for r in pilot.runs if r.spec.purpose == "tune"}
    assert not tuned & {s.run_id for s in own}


def test_sensitivity_waits_for_tuning_and_changes_no_lr():
    first = agenda(DRAWN, DATA, []).ready
    assert {s.purpose for s in first} == {"tune"}
    pilot = carry_out(DRAWN, Valley(DRAWN), workers=3, order=random.Random(1))
    stages = [r.spec.purpose for r in pilot.runs]
    assert "tune" not in stages[stages.index("sensitivity") :]
    assert tuning_trials(DRAWN, pilot.runs) == tuning_trials(
        PLAN, carry_out(PLAN, Valley(PLAN)).runs
    )


def test_off_by_default():
    assert carry_out(PLAN, Valley(PLAN)).purpose("sensitivity") == []
    assert len(PLAN.sizes()) == 1

"""A pilot that cannot forecast its target says so before it is run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mars_optim.experiment.pilot.target_design import job_warnings, target_warnings
from mars_optim.experiment.plan.cost import CostPlan
from mars_optim.experiment.plan.target import TargetPlan
from tests.support.scaled_pilot import ONE_SIZE, PARAMETERS, SCALED, STEP_TOKENS

SIZES = {
    size.name: (PARAMETERS[getattr(size.task, "width", 64)], STEP_TOKENS) for size in SCALED.sizes()
}
SAME = {size.name: (1_000_000, STEP_TOKENS) for size in ONE_SIZE.sizes()}


def test_a_design_that_can_tell_is_not_warned_of() -> None:
    assert target_warnings(SCALED, SIZES) == []


def test_a_pilot_much_shorter_than_its_target_is_told_so() -> None:
    longer = replace(SCALED, target=TargetPlan(parameters=6.4e7, tokens=5.2e10, batch=2e5))
    (text,) = target_warnings(longer, SIZES)
    assert "160 tokens per parameter, the target 812" in text
    assert "16,000 steps, the target 260,000" in text
    assert "wrong sign" in text
    assert "docs/size-and-length.md" in text


def test_steps_count_where_the_batch_is_known() -> None:
    target = TargetPlan(parameters=6.4e7, tokens=1.28e9, batch=1e4)
    assert "16,000 steps" in target_warnings(replace(SCALED, target=target), SIZES)[0]
    unknown = replace(target, batch=0.0)
    assert target_warnings(replace(SCALED, target=unknown), SIZES) == []


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        (CostPlan(planned_tokens=3.2e9), "its 3.2e+09 tokens are 10 times the longest run of mars"),
        (CostPlan(tokens_per_hour=6.4e7, planned_hours=50.0), "its 3.2e+09 tokens are 10 times"),
        (CostPlan(planned_hours=80.0), "its 80 hours are 9 times"),
    ],
)
def test_a_job_longer_than_the_pilot_is_told_without_a_target(cost: CostPlan, said: str) -> None:
    plan = replace(SCALED, target=TargetPlan(), cost=cost)
    (text,) = job_warnings(plan, STEP_TOKENS, step_seconds=2.0)
    assert said in text
    assert "wrong sign" in text
    assert "[target]" in text


def test_a_job_of_unknown_or_like_length_is_not_warned_of() -> None:
    none = replace(SCALED, target=TargetPlan())
    assert job_warnings(none, STEP_TOKENS, 2.0) == []  # its thousand hours are a default
    near = replace(none, cost=CostPlan(planned_tokens=1e9))
    assert job_warnings(near, STEP_TOKENS, 2.0) == []
    uncounted = replace(none, cost=CostPlan(planned_tokens=1e12))
    assert job_warnings(uncounted, 1, 2.0) == []


def test_a_design_that_cannot_tell_is_refused_beforehand() -> None:
    (text,) = target_warnings(ONE_SIZE, SAME)
    assert "will be refused: mars-adamw and adamw share one size" in text
    assert "[scale.large]" in text


def test_what_the_runs_will_not_tell_is_asked_for() -> None:
    nothing = dict.fromkeys(SAME, (0, 1))
    assert "target.pilot_parameters" in target_warnings(ONE_SIZE, nothing)[0]
    job = replace(ONE_SIZE.target, pilot_parameters=1e6, pilot_tokens_per_step=2e4)
    said = replace(ONE_SIZE, target=job)
    assert target_warnings(said, nothing) == target_warnings(ONE_SIZE, SAME)

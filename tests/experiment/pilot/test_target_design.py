"""What a planned pilot cannot tell of its target is said before it is run."""

from __future__ import annotations

from dataclasses import replace

from mars_optim.experiment.pilot.target_design import target_warnings
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


def test_steps_count_where_the_batch_is_known() -> None:
    target = TargetPlan(parameters=6.4e7, tokens=1.28e9, batch=1e4)
    assert "16,000 steps" in target_warnings(replace(SCALED, target=target), SIZES)[0]
    unknown = replace(target, batch=0.0)
    assert target_warnings(replace(SCALED, target=unknown), SIZES) == []


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

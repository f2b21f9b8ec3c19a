"""The probe of a command: times of its step and of its start."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import Any

import pytest

from mars_optim.experiment.executors import probe as probed
from mars_optim.experiment.executors.probe import probe_command
from mars_optim.experiment.pilot.probing import unknown_steps
from mars_optim.experiment.plan import RunSpec
from mars_optim.experiment.plan.execution import RunningPlan
from mars_optim.experiment.records import Outcome
from tests.support.pretend import small_plan

START, STEP = 30.0, {"adamw": 0.1, "nadamw": 0.2, "mars-adamw": 0.3}
PLAN = small_plan(steps=400)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(probed, "time", made)
    return made


def command(clock: Clock, *, tells: bool) -> Any:
    def run(spec: RunSpec) -> tuple[Outcome, bool]:
        seconds = spec.steps * STEP[spec.arm_name]
        clock.now += START + seconds
        return outcome_of(spec, seconds if tells else START + seconds), tells

    return run


def outcome_of(spec: RunSpec, seconds: float) -> Outcome:
    return Outcome(
        status="finished",
        final_loss=1.0,
        steps=spec.steps,
        tokens=spec.steps,
        seconds=seconds,
        parameters=1,
        state_bytes=8,
    )


@pytest.mark.parametrize("tells", [True, False], ids=["it tells its seconds", "it tells none"])
def test_a_commands_start_is_told_apart_from_its_steps(clock: Clock, tells: bool):
    found = probe_command(PLAN, command(clock, tells=tells))
    for arm, seconds in STEP.items():
        assert found[arm]["seconds"] == pytest.approx(seconds)
        assert found[arm]["outside"] == pytest.approx(START)
        assert found[arm]["ratio"] == pytest.approx(seconds / STEP["adamw"])


def test_varying_start_time_is_not_mistaken_for_steps(clock: Clock):
    """As nanoGPT's: seconds of imports, and ten steps of 20 ms that drown in their spread."""
    starts = itertools.cycle([30.0, 31.5, 29.0, 30.6, 32.0, 29.9, 30.4])

    def run(spec: RunSpec) -> tuple[Outcome, bool]:
        whole = next(starts) + 0.02 * spec.steps
        clock.now += whole
        return outcome_of(spec, whole), False

    plan = small_plan(steps=1000)
    found = probe_command(plan, run)
    for row in found.values():
        assert row["seconds"] == pytest.approx(0.02, rel=0.2)
        assert 0.8 < row["ratio_low"] <= row["ratio_high"] < 1.25


@pytest.mark.parametrize("unlucky", ["adamw", "mars-adamw"])
def test_steps_that_drown_in_the_start_have_no_ratio(clock: Clock, unlucky: str):
    """They take next to no time, and the starts of one arm or both differ by more."""
    starts = itertools.cycle([0.5, 0.9, 0.6, 0.7, 0.65, 0.8, 0.55])

    def run(spec: RunSpec) -> tuple[Outcome, bool]:
        step = 1e-6 if spec.arm_name == unlucky else 0.1
        whole = next(starts) + step * spec.steps
        clock.now += whole
        return outcome_of(spec, whole), False

    found = probe_command(small_plan(steps=1000), run)
    unknown = set(STEP) if unlucky == "adamw" else {unlucky}  # of the baseline, all
    assert {arm for arm, row in found.items() if row["ratio"] is None} == unknown
    assert {arm for arm, row in found.items() if row["ratio_high"] is None} == unknown
    assert all(row["seconds"] > 0 for row in found.values())
    assert unlucky in unknown_steps(found)


@pytest.mark.parametrize(("seconds", "steps"), [(0.2, 20), (0.02, 50), (1e-4, 400)])
def test_short_runs_are_longer_where_steps_take_next_to_no_time(
    clock: Clock, seconds: float, steps: int
):
    made: list[int] = []

    def run(spec: RunSpec) -> tuple[Outcome, bool]:
        made.append(spec.steps)
        clock.now += seconds * spec.steps
        return outcome_of(spec, seconds * spec.steps), True

    probe_command(PLAN, run)
    assert made[0] == 20  # of 400
    assert set(made[1:]) == {steps}


def test_no_short_run_is_shorter_than_the_plan_says(clock: Clock):
    made: list[int] = []

    def run(spec: RunSpec) -> tuple[Outcome, bool]:
        made.append(spec.steps)
        clock.now += spec.steps
        return outcome_of(spec, float(spec.steps)), True

    probe_command(replace(PLAN, running=RunningPlan(probe_steps=130)), run)
    assert set(made) == {130}


def test_a_command_without_a_start_has_none(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(f"{__name__}.START", 0.0)
    found = probe_command(replace(PLAN), command(clock, tells=False))
    assert [row["outside"] for row in found.values()] == pytest.approx([0.0] * 3)


def test_the_clock_is_the_one_that_never_jumps():
    assert probed.time is time

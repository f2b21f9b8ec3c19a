"""What the probe of a command says of its step and of its start."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from pretend import small_plan

from mars_optim.pilot import probe as probed
from mars_optim.pilot.probe import probe_command
from mars_optim.records import Outcome, RunSpec

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
        outcome = Outcome(
            status="finished",
            final_loss=1.0,
            steps=spec.steps,
            tokens=spec.steps,
            seconds=seconds if tells else START + seconds,
            parameters=1,
            state_bytes=8,
        )
        return outcome, tells

    return run


@pytest.mark.parametrize("tells", [True, False], ids=["it tells its seconds", "it tells none"])
def test_a_commands_start_is_told_apart_from_its_steps(clock: Clock, tells: bool):
    found = probe_command(PLAN, command(clock, tells=tells))
    for arm, seconds in STEP.items():
        assert found[arm]["seconds"] == pytest.approx(seconds)
        assert found[arm]["outside"] == pytest.approx(START)
        assert found[arm]["ratio"] == pytest.approx(seconds / STEP["adamw"])


def test_a_command_without_a_start_has_none(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("test_probe.START", 0.0)
    found = probe_command(replace(PLAN), command(clock, tells=False))
    assert [row["outside"] for row in found.values()] == pytest.approx([0.0] * 3)


def test_the_clock_is_the_one_that_never_jumps():
    assert probed.time is time

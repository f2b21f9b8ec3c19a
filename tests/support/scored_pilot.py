"""A pilot's folder written by hand in which the accuracy rises with log tokens; no training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.plan_file import make_plan
from mars_optim.experiment.records import Outcome, RunWriter
from tests.support.specs import spec_in
from tests.support.written_pilot import ENVIRONMENT, begin

UNIT = 1000
METRIC = ("decision.metric=accuracy", "decision.direction=up")
IMAGES = ("task.kind=images", "task.corpus=pictures", "training.evaluations=20")
COMMAND = (
    "task.kind=command",
    "task.command='t {optimizer} {lr} {seed} {steps} {run_dir}'",
    "arm.adamw.lr=0.001",
    "arm.mars-adamw.lr=0.003",
)


def accuracy(share: float, lag: float, *, up: bool = True) -> float:
    """After a share of the run, of a run that is late by ``lag`` in log tokens."""
    value = 0.6 + 0.2 * (math.log(share) - lag)
    return value if up else 1.0 - value


def write_scored(
    out: Path,
    lags: Mapping[str, Mapping[int, float]],
    *sets: str,
    task: tuple[str, ...] = IMAGES,
    evaluations: int = 20,
) -> Plan:
    """Write the runs of a pilot.

    Args:
        out: folder to make.
        lags: of each arm and seed, in log tokens.
        sets: of the plan.
        task: likewise.
        evaluations: of each run, evenly.
    """
    seeds = list(next(iter(lags.values())))
    given = ("arms=['adamw', 'mars-adamw']", f"training.steps={UNIT}", *task)
    plan = make_plan({}, (*given, f"comparison.seeds={seeds}", *sets))
    begin(out, plan)
    for arm in plan.arms:
        for i, factor in enumerate((0.25, 0.5, 1.0, 2.0, 4.0)):
            lag = 0.05 * (i - 2) ** 2
            spec = spec_in(plan, "tune", arm, plan.arm[arm].lr * factor, 0, UNIT)
            write_curve(out, plan, spec, lag, evaluations)
        for seed, lag in lags[arm].items():
            for budget in (1.0, *plan.ladder) if arm == "adamw" else (1.0,):
                steps, purpose = round(UNIT * budget), "compare" if budget == 1.0 else "ladder"
                spec = spec_in(plan, purpose, arm, plan.arm[arm].lr, seed, steps)
                write_curve(out, plan, spec, lag, evaluations)
    return plan


def write_curve(out: Path, plan: Plan, spec: RunSpec, lag: float, evaluations: int = 20) -> None:
    """One run, late by ``lag`` in log tokens."""
    writer, steps = RunWriter(out / "runs", spec, ENVIRONMENT), spec.steps
    up, name = plan.decision.direction == "up", plan.decision.metric
    for i in range(evaluations):
        step = round(steps * (i + 1) / evaluations)
        value = accuracy(step / UNIT, lag, up=up)
        at = dict(step=step, tokens=8 * step, seconds=step / 10)
        # the loss says the opposite: it must not decide
        writer.row(**at, loss=2.0 + value, lr=spec.lr)
        writer.row(**at, valid_loss=2.0 + value * (1 if up else -1), **{name: value})
    writer.finish(
        Outcome(
            status="finished",
            final_loss=2.0 + value,
            steps=steps,
            tokens=8 * steps,
            seconds=steps / 10,
            parameters=100,
            state_bytes=800,
            scores={name: value},
        )
    )

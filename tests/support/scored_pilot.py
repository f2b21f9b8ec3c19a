"""A pilot's folder written by hand in which the accuracy rises with log tokens; no training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.plan_file import make_plan, plan_toml
from mars_optim.experiment.records import Outcome, RunWriter
from mars_optim.files import write_json
from tests.support.written_pilot import ENVIRONMENT, probe

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
    (out / "runs").mkdir(parents=True)
    (out / "plan.toml").write_text(plan_toml(plan), encoding="utf-8")
    write_json(out / "probe.json", {arm: probe(arm) for arm in plan.arms})
    for arm in plan.arms:
        for i, factor in enumerate((0.25, 0.5, 1.0, 2.0, 4.0)):
            lag = 0.05 * (i - 2) ** 2
            _write(out, plan, "tune", arm, plan.arm[arm].lr * factor, 0, UNIT, lag, evaluations)
        for seed, lag in lags[arm].items():
            for budget in (1.0, *plan.ladder) if arm == "adamw" else (1.0,):
                steps, purpose = round(UNIT * budget), "compare" if budget == 1.0 else "ladder"
                lr = plan.arm[arm].lr
                _write(out, plan, purpose, arm, lr, seed, steps, lag, evaluations)
    return plan


def _write(
    out: Path,
    plan: Plan,
    purpose: str,
    arm: str,
    lr: float,
    seed: int,
    steps: int,
    lag: float,
    evaluations: int,
) -> None:
    spec = RunSpec(
        purpose=purpose,
        arm_name=arm,
        arm=plan.arm[arm],
        lr=lr,
        seed=seed,
        steps=steps,
        task=plan.task,
        training=plan.training,
        data="0" * 64,
    )
    writer = RunWriter(out / "runs", spec, ENVIRONMENT)
    up, name = plan.decision.direction == "up", plan.decision.metric
    for i in range(evaluations):
        step = round(steps * (i + 1) / evaluations)
        value = accuracy(step / UNIT, lag, up=up)
        at = dict(step=step, tokens=8 * step, seconds=step / 10)
        # the loss says the opposite: it must not decide
        writer.row(**at, loss=2.0 + value, lr=lr)
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

"""A pilot's folder written by hand: losses by formula, no training."""

from __future__ import annotations

import math
from pathlib import Path

from mars_optim.records import Outcome, Plan, RunSpec, RunWriter
from mars_optim.records.plan import make_plan, plan_toml
from mars_optim.records.run import write_json

ENVIRONMENT = {"python": "3.11.7", "torch": "2.13.0", "system": "Linux x86_64", "device": "cpu"}


def baseline_loss(steps: int, seed: int) -> float:
    """A power law, and a little that differs from seed to seed."""
    return 1.0 + 8.0 * steps**-0.3 + 0.01 * math.sin(seed)


def write_pilot(out: Path, *, speedup: float, spread: float = 0.02, **overrides: str) -> Plan:
    """Write the runs of a pilot in which the candidate is ``speedup`` times as quick.

    Args:
        out: folder to make.
        speedup: tokens that the baseline needs per token of the candidate; NAdamW has half of it.
        spread: of the speed-up over seeds, relative.
        overrides: of the plan, with ``__`` for dots.
    """
    sets = tuple(f"{key.replace('__', '.')}={value}" for key, value in overrides.items())
    plan = make_plan({}, ("training.steps=1000", *sets))
    (out / "runs").mkdir(parents=True)
    (out / "plan.toml").write_text(plan_toml(plan), encoding="utf-8")
    speeds = {"adamw": 1.0, "nadamw": speedup**0.5, "mars-adamw": speedup}
    write_json(out / "probe.json", {arm: probe(arm) for arm in plan.arms})
    for arm in plan.arms:
        for i, factor in enumerate((0.5, 1.0, 2.0)):
            loss = baseline_loss(round(1000 * speeds[arm]), 0) + 0.02 * abs(i - 1)
            write_run(out, plan, "tune", arm, plan.arm[arm].lr * factor, 0, 1000, loss)
        for seed in plan.comparison.seeds:
            speed = speeds[arm] * math.exp(spread * math.cos(seed) * (arm != "adamw"))
            budgets = (1.0, *plan.comparison.ladder) if arm == "adamw" else (1.0,)
            for budget in budgets:
                steps = plan.steps(budget)
                loss = baseline_loss(round(steps * speed), seed)
                stage = "compare" if budget == 1.0 else "ladder"
                write_run(out, plan, stage, arm, plan.arm[arm].lr, seed, steps, loss)
    return plan


def write_run(
    out: Path, plan: Plan, stage: str, arm: str, lr: float, seed: int, steps: int, loss: float
) -> None:
    spec = RunSpec(
        stage=stage,
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
    for share in (0.25, 0.5, 0.75, 1.0):
        step = round(steps * share)
        at = dict(step=step, tokens=512 * step, seconds=step / 100)
        writer.row(**at, loss=loss / share**0.2, lr=lr * (1 - share), grad_norm=1.0)
    writer.row(step=steps, tokens=512 * steps, seconds=steps / 100, valid_loss=loss)
    writer.finish(
        Outcome(
            status="finished",
            final_loss=loss,
            steps=steps,
            tokens=512 * steps,
            seconds=steps / 100,
            parameters=1000,
            state_bytes=12000 if arm == "mars-adamw" else 8000,
        )
    )


def probe(arm: str) -> dict[str, float]:
    ratio = 1.0 if arm == "adamw" else 1.05
    return {
        "seconds": 0.01 * ratio,
        "ratio": ratio,
        "ratio_low": ratio - 0.01,
        "ratio_high": ratio + 0.01,
        "state_bytes": 8000,
        "rounds": 15,
    }

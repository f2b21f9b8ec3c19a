"""A pilot's folder written by hand: losses by formula, no training."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from mars_optim.experiment.analysis import Analysis
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.plan_file import make_plan, plan_toml
from mars_optim.experiment.plan.sizes import Size
from mars_optim.experiment.records import Outcome, RunWriter
from mars_optim.files import write_json
from tests.support.specs import spec_in

ENVIRONMENT = {"python": "3.11.7", "torch": "2.13.0", "system": "Linux x86_64", "device": "cpu"}

EXTRAS = dict(
    comparison__ablations="true",
    scale__half__width="32",
    scale__double__width="128",
    sensitivity__gammas="[0.0, 0.05]",
    cost__price_per_hour="2.5",
    cost__planned_tokens="2e12",
)
"""For write_pilot: everything that a plan may ask for on top."""


def baseline_loss(steps: int, seed: int) -> float:
    """A power law, and a little that differs from seed to seed."""
    return 1.0 + 8.0 * steps**-0.3 + 0.01 * math.sin(seed)


def write_pilot(out: Path, *, speedup: float, spread: float = 0.02, **overrides: str) -> Plan:
    """Write the runs of a pilot in which the candidate is ``speedup`` times as quick.

    Args:
        out: folder to make.
        speedup: tokens that the baseline needs per token of the candidate; all other arms have
            half of it, in the logarithm, and other sizes a little less of it.
        spread: of the speed-up over seeds, relative.
        overrides: of the plan, with ``__`` for dots.
    """
    sets = tuple(f"{key.replace('__', '.')}={value}" for key, value in overrides.items())
    plan = make_plan({}, ("training.steps=1000", *sets))
    begin(out, plan)
    for i, size in enumerate(plan.sizes()):
        speeds = dict.fromkeys(size.arms, speedup**0.5)
        speeds |= {"adamw": 1.0, plan.comparison.candidate: speedup / (1 + 0.02 * i)}
        for arm in size.arms:
            _write_arm(out, plan, size, arm, speeds[arm], spread)
    for arm, gamma in [("adamw", None), *(("mars-adamw", g) for g in plan.sensitivity.gammas)]:
        for factor in plan.sensitivity.factors if plan.sensitivity.gammas else ():
            if gamma is None and factor in (0.5, 1.0, 2.0):
                continue  # tuned there already
            loss = 2.0 + 0.05 * math.log2(factor) ** 2 + (gamma or 0.0)
            lr = plan.arm[arm].lr * factor
            write_run(out, plan, "sensitivity", arm, lr, 0, 1000, loss, gamma=gamma)
    return plan


def _write_arm(out: Path, plan: Plan, size: Size, arm: str, pace: float, spread: float) -> None:
    unit = size.training.steps
    for i, factor in enumerate((0.5, 1.0, 2.0)):
        loss = baseline_loss(round(unit * pace), 0) + 0.02 * abs(i - 1)
        write_run(out, plan, "tune", arm, plan.arm[arm].lr * factor, 0, unit, loss, size=size)
    for seed in plan.comparison.seeds:
        speed = pace * math.exp(spread * math.cos(seed) * (arm != "adamw"))
        for budget in (1.0, *plan.comparison.ladder) if arm == "adamw" else (1.0,):
            steps = size.steps(budget)
            loss = baseline_loss(round(steps * speed), seed)
            stage = "compare" if budget == 1.0 else "ladder"
            write_run(out, plan, stage, arm, plan.arm[arm].lr, seed, steps, loss, size=size)


def write_run(
    out: Path,
    plan: Plan,
    purpose: str,
    arm: str,
    lr: float,
    seed: int,
    steps: int,
    loss: float,
    *,
    size: Size | None = None,
    gamma: float | None = None,
) -> None:
    settings = plan.arm[arm] if gamma is None else replace(plan.arm[arm], gamma=gamma)
    spec = spec_in(plan, purpose, arm, lr, seed, steps, size=size, settings=settings)
    width = getattr(spec.task, "width", 64)
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
            parameters=1000 * width,
            state_bytes=(12000 if arm == "mars-adamw" else 8000) * width,
        )
    )


def begin(out: Path, plan: Plan) -> None:
    """Make the folder of a pilot that has made no run yet."""
    (out / "runs").mkdir(parents=True)
    (out / "plan.toml").write_text(plan_toml(plan), encoding="utf-8")
    write_json(out / "probe.json", {arm: probe(arm) for arm in plan.arms})


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


def with_control_named(analysis: Analysis, name: str) -> Analysis:
    """The analysis with another name for the control, even one that no plan would allow."""
    assert analysis.control is not None
    old = analysis.control.name
    arms = [replace(a, name=name) if a.name == old else a for a in analysis.arms]
    lines = [replace(x, arm=name) if x.arm == old else x for x in analysis.sensitivity]
    contrasts = [
        replace(
            c,
            arm=name if c.arm == old else c.arm,
            against=name if c.against == old else c.against,
        )
        for c in analysis.contrasts
    ]
    return replace(analysis, arms=tuple(arms), sensitivity=tuple(lines), contrasts=tuple(contrasts))

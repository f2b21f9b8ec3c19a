"""A pilot of which more than the rate is tuned, written by hand: losses by formula."""

from __future__ import annotations

import math
import random
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from mars_optim.experiment.pilot.agenda import agenda
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.decision import LOSS
from mars_optim.experiment.plan.plan_file import make_plan
from mars_optim.experiment.plan.tuning import Point, default_of, value_at
from mars_optim.experiment.records import RunWriter, read_runs

from .pretend import DATA, finish
from .scored_pilot import write_curve
from .written_pilot import ENVIRONMENT, begin

BEST = {"lr": 1.0, "weight_decay": -0.5, "lr_1d": 0.5, "beta1": 0.3}
"""Octaves from each arm's default to its best."""
MATTERS = {"lr": 0.05, "weight_decay": 0.01, "lr_1d": 0.02, "beta1": 0.005}


def designed_plan(*sets: str, trials: int = 12, over: str = '["lr", "weight_decay"]') -> Plan:
    """Three arms, two names unless told otherwise."""
    own = ("training.steps=1000", f"tuning.over={over}", f"tuning.trials={trials}")
    return make_plan({}, (*own, *sets))


def designed_loss(plan: Plan, spec: RunSpec, speedup: float = 1.2) -> float | None:
    """A bowl around the best settings, a power of the steps, and a little noise."""
    own, at = plan.arm[spec.arm_name], Point(spec.arm, spec.lr)
    height = 0.0
    for name in plan.tuning.over:
        octaves = math.log2(value_at(at, name) / (default_of(own, name) or 1.0))
        height += MATTERS[name] * (octaves - BEST[name]) ** 2
    if at.lr > 7.0 * own.lr:
        return None  # diverged
    fast = speedup if spec.arm_name == plan.comparison.candidate else 1.0
    key = f"{spec.arm_name} {spec.lr!r} {spec.seed} {spec.steps}"
    noise = random.Random(key).gauss(0.0, 0.002) + 0.01 * math.sin(spec.seed)
    return 1.0 + 8.0 * (spec.steps * fast) ** -0.3 + height + noise


def write_designed(
    out: Path, plan: Plan, speedup: float = 1.2, runs: int = 1000, gone: Collection[str] = ()
) -> Plan:
    """Write a pilot's runs, as its agenda asks for them.

    Args:
        out: folder to make.
        plan: of the pilot.
        speedup: of the candidate.
        runs: at the most.
        gone: arms all of whose trials diverge or, where the accuracy decides, are very late.
    """
    begin(out, plan)
    written = 0
    while not (now := agenda(plan, DATA, read_runs(out / "runs"))).finished:
        for spec in now.ready:
            if written == runs:
                return plan
            lost = spec.arm_name in gone and spec.purpose == "tune"
            if plan.decision.metric != LOSS:
                write_curve(out, plan, spec, designed_lag(plan, spec, speedup) + 2 * lost)
            else:
                write(out, spec, None if lost else designed_loss(plan, spec, speedup))
            written += 1
    return plan


def designed_lag(plan: Plan, spec: RunSpec, speedup: float) -> float:
    """By how much a run is late in log tokens, in a plan whose accuracy decides."""
    own, at = plan.arm[spec.arm_name], Point(spec.arm, spec.lr)
    octaves = {
        name: math.log2(value_at(at, name) / (default_of(own, name) or 1.0)) - BEST[name]
        for name in plan.tuning.over
    }
    lag = sum(4 * MATTERS[name] * off**2 for name, off in octaves.items())
    fast = speedup if spec.arm_name == plan.comparison.candidate else 1.0
    key = f"{spec.arm_name} {spec.lr!r} {spec.seed} {spec.steps}"
    return lag - math.log(fast) + random.Random(key).gauss(0.0, 0.01)


def write(out: Path, spec: RunSpec, loss: float | None) -> None:
    writer = RunWriter(out / "runs", spec, ENVIRONMENT)
    tokens = 512 * spec.steps
    writer.row(step=spec.steps, tokens=tokens, seconds=1.0, loss=loss, lr=0.0)
    writer.row(step=spec.steps, tokens=tokens, seconds=1.0, valid_loss=loss)
    outcome = finish(spec, loss).outcome
    assert outcome is not None
    writer.finish(replace(outcome, tokens=tokens, parameters=100_000))

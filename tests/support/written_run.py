"""A finished run's folder, as ``mars train`` leaves it: no plan beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mars_optim.experiment.plan import ARMS, Plan, RunSpec
from mars_optim.experiment.plan.plan_file import make_plan
from mars_optim.experiment.records import Outcome, RunWriter

SIZES = dict(context=24, layers=3, width=24, heads=3)
ROWS: list[dict[str, Any]] = [
    dict(step=10, tokens=100, seconds=1.0, loss=5.0, lr=1e-3, grad_norm=1.0, mfu=0.25),
    dict(step=20, tokens=200, seconds=2.5, loss=4.5, lr=0.0, grad_norm=float("nan"), ratio=2),
    dict(step=20, tokens=200, seconds=2.5, valid_loss=4.0, bits_per_byte=5.77),
]


def plan_of(**task: Any) -> Plan:
    """The built-in plan with another task, whose corpus is not there any more."""
    given = {"corpus": '"gone"', **SIZES, **task}
    return make_plan({}, tuple(f"task.{key}={value}" for key, value in given.items()))


def write_run(out: Path, *, seed: int = 1, plan: Plan | None = None, data: str = "0" * 64) -> Path:
    """The folder of a run with :data:`ROWS`, below ``out / "runs"``."""
    plan = plan or plan_of()
    spec = RunSpec(
        purpose="train",
        arm_name="adamw",
        arm=ARMS["adamw"],
        lr=1e-3,
        seed=seed,
        steps=20,
        task=plan.task,
        training=plan.training,
        data=data,
    )
    writer = RunWriter(out / "runs", spec, {})
    for row in ROWS:
        writer.row(**row)
    outcome = dict(status="finished", final_loss=4.0, steps=20, tokens=200, seconds=2.5)
    writer.finish(Outcome(**outcome, parameters=1, state_bytes=8))  # type: ignore[arg-type]
    return writer.path

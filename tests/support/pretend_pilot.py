"""Files of a pilot under way, written by hand."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from mars_optim.experiment.pilot.progress import STATUS
from mars_optim.experiment.plan import RunSpec
from mars_optim.experiment.plan.plan_file import load_plan
from mars_optim.experiment.records import RunWriter


def status(out: Path, **changes: Any) -> None:
    """The pilot's word, by this process unless changed."""
    said = dict(state="running", host=platform.node(), pid=os.getpid(), beat=0, running={})
    (out / STATUS).write_text(json.dumps(said | changes))


def unfinished_run(out: Path, arm: str, *, seed: int, steps: int, rows: int) -> str:
    """A run of the comparison, under way; its id."""
    plan = load_plan(out / "plan.toml")
    spec = RunSpec(
        purpose="compare",
        arm_name=arm,
        arm=plan.arm[arm],
        lr=plan.arm[arm].lr,
        seed=seed,
        steps=steps,
        task=plan.task,
        training=plan.training,
        data="0" * 64,
    )
    writer = RunWriter(out / "runs", spec, {})
    for i in range(rows):
        writer.row(step=10 * i, tokens=5120 * i, seconds=0.1 * i, loss=2.5, lr=1e-3)
    writer.close()
    return spec.run_id

"""One run, in whatever process it is given to: the task from the plan, the run into its folder."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..records import Outcome, Plan, RunSpec, RunWriter
from ..tasks import Task, TextTask, load_corpus
from ..train import train


def load_task(plan: Plan) -> Task:
    """The task of a plan.

    Raises:
        ValueError: if its data are missing or too few.
    """
    t = plan.task
    return TextTask(
        load_corpus(t.corpus),
        context=t.context,
        layers=t.layers,
        width=t.width,
        heads=t.heads,
        batch=t.batch,
    )


def execute(spec: RunSpec, task: Task, out: Path, on_step: Callable[[int], None]) -> Outcome:
    """Train ``spec`` and record it, with its outcome, below ``out / "runs"``.

    Args:
        spec: what to run.
        task: as :func:`load_task` returns it.
        out: folder of the pilot.
        on_step: called with the number of steps taken.
    """
    writer = RunWriter(out / "runs", spec, environment())
    try:
        outcome = train(spec, task, writer, on_step)
        writer.finish(outcome)
    finally:
        writer.close()
    return outcome


def environment() -> dict[str, Any]:
    """Date, versions and machine, for the manifest."""
    import accelerate

    from .._version import __version__

    cuda = torch.cuda.is_available()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "mars_optim": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }

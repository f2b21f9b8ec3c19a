"""What a worker does with a plan: train its task in this process."""

from __future__ import annotations

import datetime
import math
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from .._version import __version__
from ..records import Outcome, Plan, RunSpec, RunWriter

OnStep = Callable[[int], None]


class Job(Protocol):
    """A plan's task, ready to be trained."""

    fingerprint: str

    def probe(self) -> dict[str, Any]:
        """Step times of all arms (see :func:`mars_optim.pilot.probe.probe`)."""
        ...

    def run(self, spec: RunSpec, on_step: OnStep) -> Outcome:
        """Carry out ``spec`` and record it with its outcome."""
        ...


def load_job(plan: Plan, out: Path, threads: int) -> Job:
    """The job of a plan.

    Args:
        plan: of the pilot.
        out: its folder.
        threads: for each run.

    Raises:
        ValueError: if its data are missing or too few.
    """
    return TaskJob(plan, out, threads)


class TaskJob:
    """Trains the plan's task in this process."""

    def __init__(self, plan: Plan, out: Path, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.plan, self.out, self.threads = plan, out, threads
        self.task = load_task(plan)
        self.fingerprint = self.task.fingerprint
        self.checkpoint_seconds = 60.0 * plan.running.checkpoint_minutes or math.inf

    def probe(self) -> dict[str, Any]:
        """Whole training steps of all arms in turn."""
        from .probe import probe

        return probe(self.plan, self.task)

    def run(self, spec: RunSpec, on_step: OnStep) -> Outcome:
        """One training run, in ``out / "runs"``."""
        from ..train import train

        writer = RunWriter(self.out / "runs", spec, environment(self.threads))
        try:
            outcome = train(spec, self.task, writer, on_step, self.checkpoint_seconds)
            writer.finish(outcome)
        finally:
            writer.close()
        return outcome


def load_task(plan: Plan) -> Any:
    """The :class:`~mars_optim.tasks.Task` of a plan.

    Raises:
        ValueError: if its data are missing or too few.
    """
    from ..tasks import TextTask, load_corpus

    t = plan.task
    return TextTask(
        load_corpus(t.corpus),
        context=t.context,
        layers=t.layers,
        width=t.width,
        heads=t.heads,
        batch=t.batch,
    )


def environment(threads: int) -> dict[str, Any]:
    """Date, versions and machine, for the manifest."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "mars_optim": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "accelerate": version("accelerate"),
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cores": os.cpu_count(),
        "threads": threads,
    }

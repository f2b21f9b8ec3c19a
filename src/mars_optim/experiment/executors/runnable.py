"""Work on a plan: train its task in this process, or run its command."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from ..._version import __version__
from ..external.command_run import OFTEN, POLL, Command
from ..plan import ExecutionOptions, Plan, RunSpec
from ..plan.task import CommandPlan, GptPlan, ImagesPlan, PythonPlan
from ..records import Outcome, RunWriter

OnStep = Callable[[int], None]


class Runnable(Protocol):
    """A plan's task, ready to be trained."""

    fingerprint: str

    def probe(self) -> dict[str, Any]:
        """Step times of all arms (see :func:`mars_optim.experiment.executors.probe.probe`)."""
        ...

    def run(self, spec: RunSpec, on_step: OnStep) -> Outcome:
        """Carry out ``spec`` and record it with its outcome."""
        ...


def load_runnable(plan: Plan, out: Path, threads: int) -> Runnable:
    """The job of a plan, checked as far as that costs next to nothing.

    Args:
        plan: of the pilot.
        out: its folder.
        threads: for each run.

    Raises:
        UserError: if something that the plan names is not there, or an optimizer that an arm
            names does not keep to its contract.
        ValueError: if the data are too few, or a task of the user's breaks the protocol.
    """
    if plan.task.kind == "command":
        return RunnableCommand(plan, out, threads)
    return RunnableTask(plan, out, threads)


class RunnableCommand:
    """Runs the plan's command."""

    def __init__(self, plan: Plan, out: Path, threads: int) -> None:
        assert isinstance(plan.task, CommandPlan)
        self.plan, self.out = plan, out
        self.command = Command(plan.task, out, threads)
        self.command.check()
        self.fingerprint = self.command.fingerprint
        self.environment = {**environment(threads), "command": plan.task.command}

    def probe(self) -> dict[str, Any]:
        """Short runs of all arms in turn, timed by their own seconds or by when rows come."""
        from .probe import probe_command

        return probe_command(self.plan, self._short_run)

    def run(self, spec: RunSpec, on_step: OnStep) -> Outcome:
        """One run of the command, in ``out / "runs"``."""
        return self._run(spec, "runs", on_step, POLL)[0]

    def _short_run(self, spec: RunSpec) -> tuple[Outcome, bool]:
        """Its outcome, and whether its seconds are those of its steps alone."""
        return self._run(spec, "probe", lambda step: None, OFTEN)

    def _run(
        self, spec: RunSpec, folder: str, on_step: OnStep, poll: float
    ) -> tuple[Outcome, bool]:
        with contextlib.closing(RunWriter(self.out / folder, spec, self.environment)) as writer:
            outcome, timed = self.command.run(spec, writer, on_step, poll)
            writer.finish(outcome)
        return outcome, timed


class RunnableTask:
    """Trains the plan's task in this process, or as one of several that make a run together.

    Args:
        plan: of the pilot.
        out: its folder.
        threads: for each run.
        execution: how runs are carried out; None for a pilot's.
        only: the one arm that is to be run; None for all.
    """

    def __init__(
        self,
        plan: Plan,
        out: Path,
        threads: int,
        execution: ExecutionOptions | None = None,
        only: str | None = None,
    ) -> None:
        import torch

        from .arm_checks import check_arms

        torch.set_num_threads(threads)
        self.plan, self.out, self.threads = plan, out, threads
        execution = execution or ExecutionOptions(sparing=plan.decision.target is None)
        self.execution = replace(execution, **asdict(plan.running))
        self.task = load_task(plan)
        self.sizes = {plan.task: self.task}  # the plan's other sizes join when they are run
        self.fingerprint = self.task.fingerprint
        check_arms(plan, self.task, out, only)

    def probe(self) -> dict[str, Any]:
        """Whole training steps of all arms in turn."""
        from .probe import probe

        return probe(self.plan, self.task)

    def run(self, spec: RunSpec, on_step: OnStep) -> Outcome:
        """One training run, in ``out / "runs"``."""
        from ..training import run_writer, train

        if spec.task not in self.sizes:
            self.sizes[spec.task] = load_task(replace(self.plan, task=spec.task, scale={}))
        writer = run_writer(self.out / "runs", spec, self._environment())
        try:
            outcome = train(spec, self.sizes[spec.task], writer, on_step, self.execution)
            writer.finish(outcome)
        finally:
            writer.close()
        return outcome

    def _environment(self) -> dict[str, Any]:
        return {**environment(self.threads), "execution": asdict(self.execution)}


def load_task(plan: Plan) -> Any:
    """The :class:`~mars_optim.experiment.tasks.Task` of a plan; one of the user's is tried first.

    Raises:
        ValueError: if its data are missing or too few, or it breaks the protocol.
    """
    from ..tasks import ImageTask, TextTask, check_task, import_task, load_corpus, load_images
    from ..training import alone

    t = plan.task
    if isinstance(t, PythonPlan):
        task = import_task(t.source, Path(t.folder))
        check_task(task, alone().device, metric=plan.decision.metric)
        return task
    if isinstance(t, ImagesPlan):
        return ImageTask(
            load_images(t.corpus), batch=t.batch, width=t.width, augment=t.augment, subset=t.subset
        )
    assert isinstance(t, GptPlan)  # the others are not trained here
    return TextTask(
        load_corpus(t.corpus),
        context=t.context,
        layers=t.layers,
        width=t.width,
        heads=t.heads,
        batch=t.batch,
        vocabulary=t.vocabulary,
        bias=t.bias,
        init=t.init,
        scale_attention_by_layer=t.scale_attention_by_layer,
        base_width=t.base_width,
        base_layers=t.base_layers,
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
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cores": os.cpu_count(),
        "threads": threads,
    }

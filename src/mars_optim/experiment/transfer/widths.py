"""A plan's task at several widths, for the coordinate check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...errors import UserError
from ...optim.transfer import Ratios
from ..executors.runnable import load_task
from ..plan import Plan
from ..plan.task import GptPlan, PythonPlan
from ..tasks import Task, import_task


@dataclass(frozen=True, slots=True)
class Wider:
    """A task whose models' rates are those of a narrower one, unless they say so themselves."""

    task: Task
    ratios: Ratios

    def build_model(self, seed: int) -> nn.Module:
        """The task's model, with ``transfer``."""
        model = self.task.build_model(seed)
        if getattr(model, "transfer", None) is None:
            model.transfer = self.ratios  # type: ignore[assignment]
        return model

    def batch(self, seed: int, step: int, micro: int) -> Any:
        """The task's."""
        return self.task.batch(seed, step, micro)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The task's."""
        return self.task.loss(model, batch)


def at_widths(plan: Plan, widths: Sequence[int], base: int) -> dict[int, Any]:
    """The plan's task at each width, with the rates of ``base``.

    A task in Python is called with ``width=``; its model has to scale its own logits and starts.

    Raises:
        UserError: for a width that the model cannot have, or a task that takes none.
    """
    try:
        return {width: _at(plan, width, base) for width in widths}
    except ValueError as error:
        raise UserError(str(error)) from None


def _at(plan: Plan, width: int, base: int) -> Any:
    task = plan.task
    if isinstance(task, PythonPlan):
        wide = import_task(task.source, Path(task.folder), width=width)
        return Wider(wide, Ratios(width=width / base))
    assert isinstance(task, GptPlan)  # the command line refuses the others
    of_head = task.width // task.heads
    if width % of_head:
        raise UserError(
            f"--widths {width} must be a multiple of the head width {of_head}, which stays the same"
        )
    wider = replace(task, width=width, heads=width // of_head, base_width=base)
    return load_task(replace(plan, task=wider))

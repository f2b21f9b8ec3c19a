"""Sizes of a plan's task: its own, and others on which the effect is seen to grow or shrink."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from ...errors import UserError
from .table import Whole, option, table
from .task import Kinds, check_task
from .training import LEAST_STEPS, TrainingPlan

OWN_SIZE = "main"
"""Name of the plan's own task among its sizes."""


@table
class SizePlan:
    """Another size of the task, on which baseline, candidate and control are tuned and compared.

    What is 0 stays as in ``task`` and ``training``.
    """

    layers: Whole = option(0, "transformer blocks; 0 as in task", ge=0, le=1000)
    width: Whole = option(0, "model width; 0 as in task", ge=0, le=65536)
    heads: Whole = option(0, "attention heads; 0 as in task", ge=0, le=1024)
    batch: Whole = option(0, "windows in a batch; 0 as in task", ge=0, le=65536)
    steps: Whole = option(0, "of one budget unit; 0 as in training", ge=0, le=10**12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One size of the task, with all that a run of it needs.

    Args:
        name: "main" for the plan's own.
        task: what is trained.
        training: how; its ``steps`` is this size's unit budget.
        arms: that are tuned and compared at this size.
    """

    name: str
    task: Kinds
    training: TrainingPlan
    arms: tuple[str, ...]

    def steps(self, budget: float) -> int:
        """Optimizer steps of a budget in units of ``training.steps``."""
        return max(1, round(budget * self.training.steps))

    def branch_points(self, budgets: Iterable[float]) -> tuple[int, ...]:
        """Steps at which the decays of these budgets branch off a trunk, rising."""
        starts = (self.training.decay_start(self.steps(budget)) for budget in budgets)
        return tuple(sorted(starts))

    def scaled(self, name: str, size: SizePlan, arms: tuple[str, ...]) -> Size:
        """This one with what another size says.

        Raises:
            UserError: if it has too few steps.
        """
        given = asdict(size)
        steps = given.pop("steps") or self.training.steps
        if steps < LEAST_STEPS:
            raise UserError(f"scale.{name}.steps = {steps} must be at least {LEAST_STEPS}")
        task = replace(self.task, **{key: value for key, value in given.items() if value})
        return Size(name=name, task=task, training=replace(self.training, steps=steps), arms=arms)


def check_sizes(sizes: tuple[Size, ...], ladder: tuple[float, ...]) -> None:
    """Check that each size can be trained, and is another one than those before it.

    Args:
        sizes: of a plan, its own, whose task has been checked, first.
        ladder: further budgets.

    Raises:
        UserError: naming the size.
    """
    for i, size in enumerate(sizes):
        if size.name != OWN_SIZE:
            check_task(size.task, f"scale.{size.name}")
        steps = [size.steps(budget) for budget in (1.0, *ladder)]
        if len(set(steps)) < len(steps):
            raise UserError(
                f"comparison.ladder = {list(ladder)}, with the common budget 1, must give "
                f"different numbers of steps, not {steps}"
            )
        if size.training.trunk:
            _check_branches(size, (1.0, *ladder))
        for other in sizes[:i]:
            if (size.task, size.training) == (other.task, other.training):
                raise UserError(f"scale.{size.name} is the same as {other.name}")


def _check_branches(size: Size, budgets: tuple[float, ...]) -> None:
    """See that each budget's decay branches off after the warm-up, at a step of its own."""
    training, where = size.training, "" if size.name == OWN_SIZE else f" at scale.{size.name}"
    shortest = size.steps(min(budgets))
    warmup, first = training.warmup_steps(shortest), shortest * (1.0 - training.decay_share)
    if warmup > first:
        raise UserError(
            f"training.warmup = {training.warmup:g} is {warmup} steps of every run with "
            f"trunks, and the decay of budget {min(budgets):g} begins at step "
            f"{first:.0f}{where}: shorten the warm-up, or leave small budgets out of "
            "comparison.ladder"
        )
    points = size.branch_points(budgets)
    decays = [size.steps(b) - training.decay_start(size.steps(b)) for b in budgets]
    if len(set(points)) < len(points) or min(points) < 1 or min(decays) < 1:
        raise UserError(
            f"training.decay_share = {training.decay_share:g} makes the decays of budgets "
            f"{sorted(budgets)} branch off at steps {list(points)}{where}, which must differ "
            "and leave at least one step each: raise training.steps or the share"
        )

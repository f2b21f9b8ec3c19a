"""The gradient of a step: the mean over its micro-batches and all processes, clipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from ...errors import UserError
from ...optim import MARS
from ...optim.distributed.sharded import is_sharded
from ...optim.two_gradient import buffers_of
from ..plan.training import TrainingPlan
from ..tasks import Task
from .convention import gradient_scale
from .parallelize import Parallelized
from .ranks import Ranks, seed_all


@dataclass(frozen=True, slots=True)
class Gradients:
    """Makes the gradient of a step in ``p.grad``; for the exact form of MARS, g_{t-1} before it.

    Process r takes the micro-batches r, r + world, ...: the mean over all of them does not depend
    on the number of processes.

    Args:
        task: gives batches and loss.
        parallelized: the model.
        optimizer: on the model's parameters.
        training: accumulation, clip and precision.
        ranks: the processes.
        seed: of the batches.
        closure: whether the optimizer's step makes the gradient again itself.

    Raises:
        UserError: if the micro-batches cannot be dealt out evenly.
    """

    task: Task
    parallelized: Parallelized
    optimizer: Optimizer
    training: TrainingPlan
    ranks: Ranks
    seed: int
    closure: bool = False

    def __post_init__(self) -> None:
        count, world = self.training.accumulation, self.ranks.world
        if count % world:
            raise UserError(
                f"training.accumulation = {count} must be a multiple of the {world} "
                "processes, which share its micro-batches: start a number of processes that "
                f"divides it, or set it to {world * -(-count // world)}"
            )

    @property
    def exact(self) -> bool:
        """Whether a step takes a second gradient, at the last point."""
        groups = self.optimizer.param_groups
        return isinstance(self.optimizer, MARS) and any(
            group["correction"] == "exact" for group in groups
        )

    def make(self, step: int) -> tuple[Tensor, Tensor]:
        """The clipped gradient of ``step``, counted from 0.

        Returns:
            This process's micro-batch losses, and the norm over all before the clip, 0-d; both on
            the device.
        """
        if self.exact:
            assert isinstance(self.optimizer, MARS)
            # one block for all micro-batches, for the clip sees all of them
            with self.optimizer.previous_point(self.parallelized.bare):
                self._mean(step)
        return self._mean(step)

    def update(self, step: int) -> None:
        """The optimizer's step on the gradient of ``step``, which :meth:`make` has made."""
        if not self.closure:
            self.optimizer.step()
            return

        def again() -> Tensor:
            with torch.enable_grad():
                self.optimizer.zero_grad()
                losses, _ = self.make(step)
            return losses.sum() / self.training.accumulation

        self.optimizer.step(again)  # type: ignore[arg-type]

    def rehearse(self) -> None:
        """One pass without effect, after which replicas sum their gradients in a fixed order.

        DDP sorts its buckets anew after the first pass: without this a run that goes on from a
        checkpoint would round otherwise in its first step.
        """
        if self.parallelized.replicated:
            with buffers_of(self.parallelized.bare):
                self._runtime(0, self.ranks.rank, 1, last=True)
            self.optimizer.zero_grad()

    def autocast(self) -> torch.autocast:
        """The plan's precision, for forward passes."""
        return autocast_of(self.training, self.ranks.device)

    def _mean(self, step: int) -> tuple[Tensor, Tensor]:
        mine = range(self.ranks.rank, self.training.accumulation, self.ranks.world)
        losses = [self._runtime(step, micro, len(mine), last=micro == mine[-1]) for micro in mine]
        return torch.stack(losses), clip_gradient(self.parallelized.bare, self.training.grad_clip)

    def _runtime(self, step: int, micro: int, count: int, *, last: bool) -> Tensor:
        batch = self.ranks.place(self.task.batch(self.seed, step, micro))
        seed_all(self.seed, step, micro)
        with self.parallelized.summing(last):
            with self.autocast():
                loss = self.task.loss(self.parallelized.model, batch)
            torch.autograd.backward(gradient_scale(self.training) * loss / count)
        return loss.detach()


def autocast_of(training: TrainingPlan, device: torch.device) -> torch.autocast:
    """The plan's precision, for forward passes on this device."""
    return torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bf16")


def clip_gradient(model: nn.Module, limit: float) -> Tensor:
    """Scale the gradient to a norm of at most ``limit`` over all tensors and processes.

    Args:
        model: with gradients.
        limit: 0 for none.

    Returns:
        The norm before, 0-d.
    """
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm: Any = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if is_sharded(norm):
        norm = norm.full_tensor()
    if limit:
        nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    before: Tensor = norm
    return before

"""Tasks that take microseconds, in float64, and a run on one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mars_optim import MARS
from mars_optim.experiment.plan import RunSpec
from mars_optim.experiment.plan.arms import ARMS
from mars_optim.experiment.plan.plan import TrainingPlan
from mars_optim.experiment.plan.task import GptPlan
from mars_optim.experiment.records import Run, RunWriter, read_run
from mars_optim.experiment.tasks import Task
from mars_optim.experiment.training import build_optimizer, lr_factor, train

TRUE = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], dtype=torch.float64)


class Regression:
    """A linear model of three inputs and two outputs; batches have gradients of many sizes."""

    fingerprint = "regression"
    batch_tokens = 32

    def __init__(self) -> None:
        self.model: nn.Module = nn.Identity()

    def build_model(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = nn.Linear(3, 2).double()
        return self.model

    def batch(self, seed: int, step: int, micro: int) -> Tensor:
        generator = torch.Generator().manual_seed(1 + seed + 100 * step + 10_000 * micro)
        x = torch.randn(self.batch_tokens, 3, generator=generator, dtype=torch.float64)
        x *= 3.0 ** -(step % 3)
        return torch.cat([x, x @ TRUE.T + 0.1], dim=1)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return (model(batch[:, :3]) - batch[:, 3:]).square().mean()

    @torch.no_grad()
    def evaluate(self, model: nn.Module, tokens: int) -> float:
        device = next(model.parameters()).device
        return float(self.loss(model, self.batch(tokens, 0, 9).to(device)))


class Scripted(Regression):
    """Losses as written down; the gradients are zero."""

    def __init__(self, losses: Sequence[float], valid: Sequence[float] = ()) -> None:
        super().__init__()
        self.losses, self.valid = iter(losses), iter(valid)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return 0.0 * super().loss(model, batch) + next(self.losses)

    def evaluate(self, model: nn.Module, tokens: int) -> float:
        return next(self.valid, math.pi)


def make_spec(
    *, steps: int = 20, arm: str = "mars-adamw", lr: float = 0.05, seed: int = 1, **training: Any
) -> RunSpec:
    return RunSpec(
        purpose="compare",
        arm_name=arm,
        arm=ARMS[arm],
        lr=lr,
        seed=seed,
        steps=steps,
        task=GptPlan(),
        training=TrainingPlan(**training),
        data="regression",
    )


def record(
    folder: Path, task: Task, spec: RunSpec, on_step: Callable[[int], None] = lambda step: None
) -> Run:
    """Train, finish and read back."""
    writer = RunWriter(folder, spec, {})
    try:
        writer.finish(train(spec, task, writer, on_step))
    finally:
        writer.close()
    return read_run(writer.path)


def train_by_hand(task: Task, spec: RunSpec, *, clip: float | None) -> tuple[nn.Module, list[Any]]:
    """The loop in the fewest words: the mean loss over the micro-batches, one step.

    Returns:
        The model, and (loss, gradient norm) of every step.
    """
    model = task.build_model(spec.seed)
    optimizer = build_optimizer(model, spec.arm, lr=spec.lr)
    history = []
    for step in range(spec.steps):
        t = spec.training
        for group in optimizer.param_groups:
            group["lr"] = spec.lr * lr_factor(step, spec.steps, warmup=t.warmup, decay=t.decay)
        micros = [task.batch(spec.seed, step, micro) for micro in range(t.accumulation)]
        if spec.arm.correction == "exact":
            assert isinstance(optimizer, MARS)
            with optimizer.previous_point(model):
                _gradient(task, model, micros, clip)
        loss, norm = _gradient(task, model, micros, clip)
        optimizer.step()
        optimizer.zero_grad()
        history.append((loss, norm))
    return model, history


def _gradient(
    task: Task, model: nn.Module, micros: list[Any], clip: float | None
) -> tuple[float, float]:
    """The clipped gradient of the mean loss into p.grad; loss, and norm before the clip."""
    loss = torch.stack([task.loss(model, micro) for micro in micros]).mean()
    torch.autograd.backward(loss)
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    if clip is not None and norm > clip:
        for p in model.parameters():
            assert p.grad is not None
            p.grad *= clip / norm
    return loss.item(), norm.item()


def rows_of(run: Run, key: str) -> dict[int, Any]:
    """Step -> value, of the rows that have it."""
    return {row["step"]: row[key] for row in run.rows if key in row}

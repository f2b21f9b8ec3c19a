"""A run that may be stopped, what is read back of it, and a task that is a small GPT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mars_optim.experiment.plan import ExecutionOptions, RunSpec
from mars_optim.experiment.records import Run, RunWriter, read_run
from mars_optim.experiment.records.run import TIMINGS
from mars_optim.experiment.tasks import GPT, Task
from mars_optim.experiment.training import train


class Stop(Exception):  # noqa: N818
    """As sudden as kill -9, but in this process."""


def run(
    folder: Path, task: Task, spec: RunSpec, *, end: int | None = None, **options: Any
) -> tuple[Run, int]:
    """The run as it is read back, and the steps taken; stopped after ``end``."""

    def on_step(step: int) -> None:
        nonlocal steps
        steps += 1
        if step == end:
            raise Stop

    steps, writer = 0, RunWriter(folder, spec, {})
    try:
        writer.finish(train(spec, task, writer, on_step, execution=ExecutionOptions(**options)))
    except Stop:
        pass
    finally:
        writer.close()
    return read_run(writer.path), steps


def numbers(run: Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in run.rows]


class Words:
    """A small GPT."""

    fingerprint, batch_tokens = "words", 32

    def __init__(self, width: int = 8) -> None:
        self.width, self.model = width, nn.Module()

    def build_model(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        self.model = GPT(vocabulary=11, context=8, layers=2, width=self.width, heads=2)
        return self.model

    def batch(self, seed: int, step: int, micro: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed + 100 * step + 10_000 * micro)
        return torch.randint(11, (4, 9), generator=generator)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        logits = model(batch[:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    @torch.no_grad()
    def evaluate(self, model: nn.Module, tokens: int) -> float:
        return float(self.loss(model, self.batch(0, 999, 0)))

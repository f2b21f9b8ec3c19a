"""A checkpoint of a small network under AdamW, for canaries to go on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mars_optim.experiment.canary import read_checkpoint

QUICK = dict(steps=40, history=100, seeds=(1, 2, 3), eval_tokens=64)


class Lines:
    """A small network on noisy lines (see :class:`~mars_optim.experiment.tasks.Task`)."""

    fingerprint = "lines"
    batch_tokens = 16

    def build_model(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 1))

    def batch(self, seed: int, step: int, micro: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step * 101 + micro)
        x = torch.randn(16, 5, generator=generator)
        x[:, 4] = torch.tanh(x[:, :4].sum(1)) + 0.3 * x[:, 4]
        return x

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return (model(batch[:, :4])[:, 0] - batch[:, 4]).square().mean()

    @torch.no_grad()
    def evaluate(self, model: nn.Module, tokens: int) -> float:
        model.eval()
        value = float(self.loss(model, torch.cat([self.batch(0, i, 7) for i in range(8)])))
        model.train()
        return value


def saved_run(
    path: Path, *, named: bool = False, steps: int = 120, lr: float = 0.01, beta2: float = 0.95
) -> Path:
    """A checkpoint of AdamW after ``steps`` steps."""
    task, torch_state = Lines(), torch.get_rng_state()
    model = task.build_model(3)
    params: Any = model.named_parameters() if named else model.parameters()
    adamw = torch.optim.AdamW(params, lr=lr, betas=(0.9, beta2), weight_decay=0.1)
    for step in range(steps):
        adamw.zero_grad()
        task.loss(model, task.batch(9, step, 0)).backward()
        adamw.step()
    torch.save({"model": model.state_dict(), "state": {"adamw": adamw.state_dict()}}, path)
    torch.set_rng_state(torch_state)
    return path


def read(path: Path) -> Any:
    """The checkpoint of :func:`saved_run`."""
    return read_checkpoint(path, model_key="model", optimizer_key="state.adamw")

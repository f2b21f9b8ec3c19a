"""Helpers that the tests of the guard share: a history, quick settings and a small run to
guard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mars_optim import Baseline, Guard, GuardSettings, Rollback, migrate

HISTORY = Baseline([1.0 + 0.01 * (i % 5) for i in range(120)], [1.0] * 120, [], [1.0] * 120)
QUICK = GuardSettings(every=2, window=10, patience=4, settle=2, checkpoint_every=5)


class Run:
    """A small regression whose reported loss the test can falsify."""

    def __init__(self, optimizer: str = "mars", **options: Any) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.adamw = torch.optim.AdamW(self.net.parameters(), lr=0.01, betas=(0.9, 0.95))
        self.step = 0
        self.train(self.adamw, 10)
        self.optimizer: torch.optim.Optimizer = self.adamw
        if optimizer == "mars":
            self.optimizer = migrate(self.adamw, **options)

    def train(self, optimizer: torch.optim.Optimizer, steps: int = 1) -> None:
        for _ in range(steps):
            generator = torch.Generator().manual_seed(self.step)
            x = torch.randn(16, 4, generator=generator)
            optimizer.zero_grad()
            (self.net(x) - x.sum(1, keepdim=True)).square().mean().backward()
            optimizer.step()
            self.step += 1

    def guarded(self, guard: Guard, losses: dict[int, float], steps: int) -> Rollback | None:
        """Train to ``steps``; the loss said at a step is 1, or as given from there on."""
        loss = 1.0
        while self.step < steps:
            self.train(guard.optimizer)
            loss = losses.get(self.step, loss)
            back = guard.watch(loss=loss, step_seconds=1.0, position={"batch": self.step})
            if back:
                return back
        return None

    def weights(self) -> list[Tensor]:
        return [v.detach().clone() for v in self.net.state_dict().values()]


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

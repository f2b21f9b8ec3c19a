"""A loss whose gradient noise is known: g = (A + diag z) x + n, z and n drawn per batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CURVATURE = torch.tensor([0.3, 1.0, 2.0, 0.7, 1.5, 0.1], dtype=torch.float64)
Z, N = 0.3, 0.5  # standard deviations, per element


class Quadratic(nn.Module):
    """Two vectors, so that there can be two groups; dropout and a buffer to be left alone."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        start = torch.linspace(1.0, 2.0, 6, dtype=torch.float64)
        self.x = nn.Parameter(start.clone())
        self.y = nn.Parameter(-start)
        self.unused = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Tensor) -> Tensor:
        self.calls += 1
        loss = torch.zeros((), dtype=torch.float64)
        for v, (z, n) in zip((self.x, self.y), batch, strict=True):
            loss = loss + 0.5 * (v * (CURVATURE + z) * v).sum() + (self.dropout(n) * v).sum()
        return loss


def loss_fn(model: nn.Module, batch: Tensor) -> Tensor:
    loss: Tensor = model(batch)
    return loss


def draw(seed: int) -> Tensor:
    """(vector, z or n, element)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, 2, 6, dtype=torch.float64, generator=generator)
    return noise * torch.tensor([Z, N], dtype=torch.float64)[:, None]


def variance_at(x: Tensor) -> Tensor:
    """tr Var of the gradient of one vector, also at a sum of weighted points."""
    return Z**2 * x.square().sum() + N**2 * 6

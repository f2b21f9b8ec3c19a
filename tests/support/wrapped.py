"""Optimizers of torch to be wrapped by ``variance_reduce``, with tensors and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

Make = Callable[[list[nn.Parameter]], Optimizer]


def params_() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator)) for s in ((4, 3), (3, 5), (5,))]


def gradients(params: list[nn.Parameter], t: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(100 + t)
    return [torch.randn(p.shape, generator=generator) for p in params]


def step(optimizer: Optimizer, params: list[nn.Parameter], t: int) -> None:
    for p, g in zip(params, gradients(params, t), strict=True):
        p.grad = g
    optimizer.step()


def adamw(params: list[nn.Parameter], **options: Any) -> torch.optim.AdamW:
    groups = [
        {"params": params[:2], "betas": (0.95, 0.99)},
        {"params": params[2:], "betas": (0.9, 0.95)},
    ]
    return torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1, **options)


OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adamw": adamw,
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "muon": lambda p: torch.optim.Muon(p[:2], lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
}

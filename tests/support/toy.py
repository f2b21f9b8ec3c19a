"""Helpers that the tests of the hosts share: a tiny model, its batches, and comparison bit for
bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mars_optim import MARS, MARSM, MARSAdamW, MARSLion, MARSShampoo

Batch = tuple[Tensor, Tensor]

# Every rule, and both forms that need one pass.
OPTIMIZERS: dict[str, Callable[..., MARS]] = {
    "adamw": MARSAdamW,
    "lion": MARSLion,
    "shampoo": MARSShampoo,
    "muon": MARSM,
    "folded": lambda params, **options: MARSAdamW(params, correction="folded", **options),
}


class Toy(nn.Module):
    """A matrix, a gain, biases, and with ``noisy`` random numbers and a buffer in each pass."""

    def __init__(self, *, noisy: bool = False) -> None:
        super().__init__()
        self.up = nn.Linear(6, 8)
        self.norm: nn.Module = nn.BatchNorm1d(8) if noisy else nn.LayerNorm(8)
        self.drop = nn.Dropout(0.5 if noisy else 0.0)
        self.down = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.drop(torch.relu(self.norm(self.up(x))))
        return self.down(hidden)


def make_toy(*, noisy: bool = False) -> Toy:
    """The same weights each time, and the same random numbers afterwards."""
    torch.manual_seed(0)
    return Toy(noisy=noisy)


def batches(count: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(4, 6, generator=generator),
            torch.randint(3, (4,), generator=generator),
        )
        for _ in range(count)
    ]


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    x, y = batch
    return functional.cross_entropy(model(x), y)


def train_by_hand(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Iterable[Batch],
    *,
    max_norm: float | None = None,
    in_order_of: Literal["groups", "model"] = "groups",
) -> list[float]:
    """The plain loop that a host has to equal; with the exact form, by ``previous_point``.

    The gradient norm is a sum, so it takes the host's order to get the host's bits.
    """
    params = list(model.parameters())
    if in_order_of == "groups":
        params = [param for group in optimizer.param_groups for param in group["params"]]
    losses = []
    for batch in data:
        if isinstance(optimizer, MARS) and optimizer.param_groups[0]["correction"] == "exact":
            with optimizer.previous_point():
                loss_of(model, batch).backward()
                clip(params, max_norm)
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        clip(params, max_norm)
        optimizer.step()
        losses.append(loss.item())
    return losses


def exact_by_hand(data: Iterable[Batch]) -> Toy:
    """A toy after the plain loop of the exact form."""
    model = make_toy()
    train_by_hand(model, MARSAdamW(model.parameters(), lr=1e-2, correction="exact"), data)
    return model


def clip(params: list[nn.Parameter], max_norm: float | None) -> None:
    if max_norm is not None:
        torch.nn.utils.clip_grad_norm_(params, max_norm)


def state_of(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state dict, but for a key that torch adds to the defaults when it loads one."""
    state_dict = optimizer.state_dict()
    for group in state_dict["param_groups"]:
        group.pop("differentiable", None)
    return state_dict


def assert_same_model(one: nn.Module, other: nn.Module) -> None:
    """Parameters and buffers equal bit for bit."""
    assert_same(dict(one.state_dict()), dict(other.state_dict()))


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Nested dicts and lists equal: tensors bit for bit and dtype for dtype."""
    if isinstance(one, Tensor):
        assert isinstance(other, Tensor), where
        assert one.dtype == other.dtype, where
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert set(one) == set(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{i}]")
    else:
        assert one == other, where

"""variance_reduce on optimizers of other packages: they train, resume, and are themselves again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from mars_optim import variance_reduce

Make = Callable[[Iterable[nn.Parameter]], Optimizer]


def schedule_free(params: Iterable[nn.Parameter]) -> Optimizer:
    package = pytest.importorskip("schedulefree", reason="schedulefree is not installed")
    return package.AdamWScheduleFree(params, lr=0.01)  # type: ignore[no-any-return]


def soap(params: Iterable[nn.Parameter]) -> Optimizer:
    package = pytest.importorskip("pytorch_optimizer", reason="pytorch_optimizer is not installed")
    return package.SOAP(params, lr=0.01)  # type: ignore[no-any-return]


def adafactor(params: Iterable[nn.Parameter]) -> Optimizer:
    return torch.optim.Adafactor(params, lr=0.05)


MAKERS: dict[str, tuple[Make, dict[str, Any]]] = {
    "schedule-free": (schedule_free, {}),
    "soap": (soap, {}),
    "adafactor": (adafactor, {"beta1": 0.9}),  # it has no momentum of its own
}


def task() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(128, 8)
    y = torch.tanh(0.5 * x @ torch.randn(8, 1))
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1)), x, y


def train(net: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, steps: range) -> list[float]:
    if hasattr(optimizer, "train"):
        optimizer.train()
    losses, group = [], optimizer.param_groups[0]
    for step in steps:
        rows = torch.randint(128, (32,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(net(x[rows]), y[rows])
        loss.backward()
        corrected = [p for p in net.parameters() if p.ndim >= 2 and "mars_gamma" in group]
        grads = [p.grad.clone() for p in corrected]
        optimizer.step()  # schedule-free writes into the gradients that it is given
        assert all(torch.equal(p.grad, g) for p, g in zip(corrected, grads, strict=True))
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", MAKERS)
def test_it_trains_and_takes_other_steps_than_without(name: str) -> None:
    make, options = MAKERS[name]
    ends = []
    for wrapped in (False, True):
        net, x, y = task()
        optimizer = make(net.parameters())
        if wrapped:
            variance_reduce(optimizer, gamma=0.1, **options)
        losses = train(net, optimizer, x, y, range(150))
        assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
        ends.append(next(net.parameters()).detach().clone())
    assert not torch.allclose(*ends)


@pytest.mark.parametrize("name", MAKERS)
def test_it_resumes_bit_for_bit_from_that_optimizers_checkpoint(name: str) -> None:
    make, options = MAKERS[name]
    net, x, y = task()
    optimizer = make(net.parameters())
    variance_reduce(optimizer, gamma=0.1, **options)
    train(net, optimizer, x, y, range(5))
    net2 = copy.deepcopy(net)
    optimizer2 = make(net2.parameters())
    variance_reduce(optimizer2, gamma=0.1, **options)
    optimizer2.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for n, o in ((net, optimizer), (net2, optimizer2)):
        train(n, o, x, y, range(5, 10))
    for p, q in zip(net.parameters(), net2.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("name", MAKERS)
def test_after_remove_it_is_what_it_was(name: str) -> None:
    make, options = MAKERS[name]
    net, x, y = task()
    optimizer = make(net.parameters())
    handle = variance_reduce(optimizer, gamma=0.1, **options)
    train(net, optimizer, x, y, range(3))
    handle.remove()
    net2 = copy.deepcopy(net)
    optimizer2 = make(net2.parameters())
    optimizer2.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for n, o in ((net, optimizer), (net2, optimizer2)):
        train(n, o, x, y, range(3, 6))
    for p, q in zip(net.parameters(), net2.parameters(), strict=True):
        assert torch.equal(p, q)

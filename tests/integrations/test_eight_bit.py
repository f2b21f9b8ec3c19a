"""variance_reduce on the 8-bit optimizers of other packages; skipped where those are missing.

Neither is a dependency of the tests: torchao disturbs transformers beside CPU builds of torch.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mars_optim import variance_reduce

pytestmark = pytest.mark.filterwarnings("ignore")  # the packages' own

Make = Callable[[Iterable[nn.Parameter]], Optimizer]


def bitsandbytes(params: Iterable[nn.Parameter]) -> Optimizer:
    package = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    return package.optim.AdamW8bit(params, lr=1e-3)  # type: ignore[no-any-return]


def torchao(params: Iterable[nn.Parameter]) -> Optimizer:
    package = pytest.importorskip("torchao.optim", reason="torchao is not installed")
    return package.AdamW8bit(params, lr=1e-3)  # type: ignore[no-any-return]


MAKERS: list[Make] = [bitsandbytes, torchao]


def task() -> tuple[nn.Module, Tensor, Tensor]:
    """With a weight of 16,384 elements: below 4096 both packages keep float32."""
    torch.manual_seed(0)
    x = torch.randn(256, 64)
    return nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 1)), x, torch.tanh(x[:, :1])


def train(net: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, steps: range) -> list[float]:
    losses = []
    for _ in steps:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(net(x), y)
        loss.backward()
        grads = [p.grad.clone() for p in net.parameters()]
        optimizer.step()
        assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), grads, strict=True))
        losses.append(loss.item())
    return losses


def bytes_of(value: Any) -> int:
    """Also of torchao's tensors, which are made of others."""
    if not isinstance(value, Tensor):
        return 0
    if hasattr(value, "__tensor_flatten__"):
        return sum(getattr(value, name).nbytes for name in value.__tensor_flatten__()[0])
    return value.nbytes


@pytest.mark.parametrize("make", MAKERS)
def test_it_trains_with_moments_of_8_bits_and_a_stored_gradient(make: Make) -> None:
    net, x, y = task()
    optimizer = make(net.parameters())
    variance_reduce(optimizer, gamma=0.1)
    losses = train(net, optimizer, x, y, range(60))
    assert losses[-1] < 0.5 * losses[0]
    weight = next(net.parameters())
    own = sum(bytes_of(v) for k, v in optimizer.state[weight].items() if k != "mars_last_grad")
    assert own < 3 * weight.numel()
    assert optimizer.state[weight]["mars_last_grad"].nbytes == 4 * weight.numel()


@pytest.mark.parametrize("make", MAKERS)
def test_it_resumes_bit_for_bit_from_a_file(make: Make) -> None:
    net, x, y = task()
    optimizer = make(net.parameters())
    variance_reduce(optimizer, gamma=0.1)
    train(net, optimizer, x, y, range(3))
    net2 = copy.deepcopy(net)
    optimizer2 = make(net2.parameters())
    variance_reduce(optimizer2, gamma=0.1)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    optimizer2.load_state_dict(torch.load(file, weights_only=False))
    for n, o in ((net, optimizer), (net2, optimizer2)):
        train(n, o, x, y, range(3))
    for p, q in zip(net.parameters(), net2.parameters(), strict=True):
        assert torch.equal(p, q)

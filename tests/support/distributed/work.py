"""Work of the processes. Each builds the whole model too, and compares with it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from mars_optim import MARS

RULES = ("adamw", "lion", "shampoo", "muon")
CORRECTIONS = ("approx", "folded", "exact")


class Net(nn.Module):
    """Sizes that no world divides: 7 rows, 3 rows, a vector of 1, a kernel, a stack of experts."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(6, 7), nn.LayerNorm(7), nn.Linear(7, 12))
        self.kernel = nn.Conv1d(3, 5, 2)
        self.experts = nn.Parameter(torch.randn(3, 15, 4) / 4)
        self.last = nn.Linear(4, 3)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.kernel(self.first(x).view(-1, 3, 4)).tanh().flatten(1)
        return self.last(torch.einsum("bi,eij->bj", hidden, self.experts)) * self.gain


def make_net(dtype: torch.dtype) -> Net:
    torch.manual_seed(0)
    return Net().to(dtype)


def batch(step: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The same for every process, so that their mean gradient is that of one process."""
    generator = torch.Generator().manual_seed(100 + step)
    x, y = torch.randn(8, 6, generator=generator), torch.randn(8, 3, generator=generator)
    return x.to(dtype), 5 * y.to(dtype)


def make_optimizer(net: nn.Module, rule: str, correction: str, **options: Any) -> MARS:
    """Gradient differences large enough, and the clip low enough, for both to matter."""
    named = dict(net.named_parameters())
    experts = [p for name, p in named.items() if name.endswith("experts")]
    others = [p for name, p in named.items() if not name.endswith("experts")]
    clip = None if correction == "folded" else 0.5
    return MARS(
        [{"params": others}, {"params": experts, "stacked": True}],
        lr=1e-2, rule=rule, correction=correction, gamma=0.1, clip=clip,
        optimize_1d=rule in ("adamw", "lion"), **options,
    )  # fmt: skip


def train(
    net: nn.Module, optimizer: torch.optim.Optimizer, steps: range, dtype: torch.dtype
) -> None:
    for step in steps:
        x, y = batch(step, dtype)

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            loss = (net(x) - y).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)


def dtype_of(rule: str) -> torch.dtype:
    """Newton-Schulz computes in bfloat16 but for float64 parameters."""
    return torch.float64 if rule in ("shampoo", "muon") else torch.float32


@functools.cache
def world_mesh() -> DeviceMesh:
    return init_device_mesh("cpu", (distributed.get_world_size(),))


@functools.cache
def pairs_mesh() -> DeviceMesh:
    shape = (distributed.get_world_size() // 2, 2)
    return init_device_mesh("cpu", shape, mesh_dim_names=("repeat", "cut"))


def shard_all(net: Net) -> None:
    fully_shard(net.first, mesh=world_mesh())
    fully_shard(net, mesh=world_mesh())


def shard_offloaded(net: Net) -> None:
    """Parameters, gradients and state wait in the CPU's memory."""
    policy = CPUOffloadPolicy(pin_memory=False)
    fully_shard(net.first, mesh=world_mesh(), offload_policy=policy)
    fully_shard(net, mesh=world_mesh(), offload_policy=policy)


def shard_mixed(net: Net) -> None:
    """Some parameters plain, some cut over all, some over pairs, which repeat or not (HSDP)."""
    fully_shard(net.first, mesh=world_mesh())
    fully_shard(net.kernel, mesh=pairs_mesh())
    fully_shard(net.last, mesh=pairs_mesh()["cut"])


def whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def compare(net: nn.Module, other: nn.Module, rtol: float = 1e-6) -> None:
    for (name, p), q in zip(net.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(
            whole(p.detach()), q.detach(), rtol=rtol, atol=rtol * float(q.detach().abs().max()),
            msg=lambda text, name=name: f"{name}: {text}",
        )  # fmt: skip


def equals_one_process(
    shard: Callable[[Net], None], rule: str, correction: str, options: dict[str, Any]
) -> None:
    dtype = dtype_of(rule)
    alone, net = make_net(dtype), make_net(dtype)
    shard(net)
    assert any(isinstance(p, DTensor) for p in net.parameters())
    one = make_optimizer(alone, rule, correction, **options)
    other = make_optimizer(net, rule, correction, **options)
    train(alone, one, range(4), dtype)
    train(net, other, range(4), dtype)
    compare(net, alone)
    for p in net.parameters():
        held = [v for k, v in other.state[p].items() if k != "step"]
        assert all(isinstance(v, DTensor) == isinstance(p, DTensor) for v in held)


def accumulates_like_one_process(sync: bool) -> None:
    """The exact form with two micro-batches a step."""
    dtype = torch.float64
    alone, net = make_net(dtype), make_net(dtype)
    shard_all(net)
    one, other = (make_optimizer(m, "adamw", "exact") for m in (alone, net))
    for step in range(4):
        for model, optimizer in ((alone, one), (net, other)):
            for micro in range(2):
                if model is net:
                    net.set_requires_gradient_sync(sync or micro == 1)
                x, y = batch(2 * step + micro, dtype)
                with optimizer.previous_point():
                    (model(x) - y).square().mean().backward()
                (model(x) - y).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    compare(net, alone)


def skips_overflows_like_one_process(correction: str) -> None:
    """A GradScaler; in the third step the gradient of one row, so of one shard, overflows."""
    dtype = torch.float64
    alone, net = make_net(dtype), make_net(dtype)
    shard_all(net)
    one, other = (make_optimizer(m, "adamw", correction) for m in (alone, net))
    for model, optimizer in ((alone, one), (net, other)):
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        for step in range(5):
            x, y = batch(step, dtype)
            optimizer.zero_grad()
            if correction == "exact":
                with optimizer.previous_point(scaler=scaler):
                    scaler.scale((model(x) - y).square().mean()).backward()
                    if step == 4:
                        spoil(model)
            scaler.scale((model(x) - y).square().mean()).backward()
            if step == 2:
                spoil(model)
            scaler.step(optimizer)
            scaler.update()
        assert scaler.get_scale() == 4.0
    compare(net, alone)


def spoil(model: nn.Module) -> None:
    """Infinite in the first row of one matrix."""
    grad = model.first[0].weight.grad
    local = grad.to_local() if isinstance(grad, DTensor) else grad
    if not isinstance(grad, DTensor) or distributed.get_rank() == 0:
        local[0] = torch.inf

"""Work of the processes where gamma is chosen: it must be the single process's."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from mars_optim import MARS
from mars_optim.experiment.training.state_dict import begin_save, end_save, load_state
from mars_optim.gamma_numbers import SAMPLE, sampled

from .layouts import place
from .work import batch, compare, make_net, shard_all, shard_mixed, whole, world_mesh

STEPS = 200
# sampled in part; cut unevenly; with empty shards; a vector
SHAPES = [(97, 66), (7, 5), (1, 6), (5,)]
assert sampled(SHAPES[0]) < 97 * 66 > SAMPLE


def gradients(step: int, dtype: torch.dtype) -> list[Tensor]:
    """Noise, and a signal that turns, so that gamma has somewhere to go."""
    generator = torch.Generator().manual_seed(step)
    found = []
    for i, shape in enumerate(SHAPES):
        signal = torch.full(shape, i - 0.03 * step, dtype=torch.float64).sin()
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        found.append((signal + 2.0 * noise).to(dtype))
    return found


def gamma_of(optimizer: MARS) -> list[float]:
    return [float(g.get("gamma_now", 0.0)) for g in optimizer.param_groups]


def chosen_like_whole(
    layout: str, dtype: torch.dtype, rtol: float, steps: int, options: dict[str, Any]
) -> int:
    """The number of collectives in so many steps."""
    alone = [nn.Parameter(g) for g in gradients(STEPS, dtype)]
    parts = [nn.Parameter(place(g, layout)) for g in gradients(STEPS, dtype)]
    one, other = MARS(alone, **options), MARS(parts, **options)
    moved = set()
    with mock.patch.object(distributed, "all_reduce", wraps=distributed.all_reduce) as reduced:
        for step in range(steps):
            for p, q, g in zip(alone, parts, gradients(step, dtype), strict=True):
                p.grad, q.grad = g, place(g, layout)
            one.step()
            other.step()
            if step % 10 == 9:
                torch.testing.assert_close(gamma_of(other), gamma_of(one), rtol=rtol, atol=rtol)
                moved.add(gamma_of(one)[0])
    assert len(moved) == (steps - 20) // 10 + 2  # with the first, and each time to another
    for p, q in zip(alone, parts, strict=True):
        torch.testing.assert_close(
            whole(q.detach()), p.detach(), rtol=rtol, atol=rtol * float(p.detach().abs().max())
        )
    return reduced.call_count


def make(net: nn.Module, rule: str, schedule: str = "auto", **options: Any) -> MARS:
    named = dict(net.named_parameters())
    experts = [p for name, p in named.items() if name.endswith("experts")]
    others = [p for name, p in named.items() if not name.endswith("experts")]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": experts, "stacked": True}]
    return MARS(
        groups, lr=3e-3, rule=rule, gamma_schedule=schedule, correction="folded",
        optimize_1d=rule in ("adamw", "lion"), **options,
    )  # fmt: skip


def train(model: nn.Module, optimizer: MARS, steps: range, dtype: torch.dtype) -> None:
    """Noise in the labels, and each rank its own part of the batch where the model is a replica."""
    for step in steps:
        x, y = batch(step, dtype)
        if isinstance(model, DistributedDataParallel):
            rank, world = distributed.get_rank(), distributed.get_world_size()
            x, y = x.chunk(world)[rank], y.chunk(world)[rank]
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()


SHARDED = {
    "all": shard_all,
    "some plain, some over all, some over pairs": shard_mixed,
    "plain beside FSDP": lambda net: fully_shard(net.first, mesh=world_mesh()),
}


def trains_like_one_process(shard: str, rule: str, dtype: torch.dtype, rtol: float) -> None:
    alone, net = make_net(dtype), make_net(dtype)
    for model in (alone, net):
        model.kernel.requires_grad_(False)  # frozen
    model = net
    if shard == "DDP":
        model = DistributedDataParallel(net)
    else:
        SHARDED[shard](net)
    one, other = make(alone, rule), make(net, rule)
    train(alone, one, range(STEPS), dtype)
    train(model, other, range(STEPS), dtype)
    assert all(abs(gamma - 0.025) > 1e-3 for g in (one, other) for gamma in gamma_of(g)[:2])
    torch.testing.assert_close(gamma_of(other), gamma_of(one), rtol=rtol, atol=rtol)
    compare(net, alone, rtol)


def goes_on_without_some_gradients() -> list[float]:
    """Groups, and tensors, without gradients on one rank; shards that are all empty on most."""
    rank = distributed.get_rank()
    cut = [nn.Parameter(place(torch.ones(1, 6), "rows")) for _ in range(2)]
    plain = nn.Parameter(torch.ones(4, 4))
    optimizer = MARS([{"params": [cut[0], plain]}, {"params": [cut[1]]}], gamma="auto", lr=1e-3)
    for step in range(45):
        generator = torch.Generator().manual_seed(step)
        for p in (*cut, plain):
            g = torch.randn(p.shape, generator=generator)
            p.grad = place(g, "rows") if isinstance(p, DTensor) else g
        if rank and step > 5:
            plain.grad = None
            cut[1].grad = None if step % 3 else cut[1].grad
        optimizer.step()
    return gamma_of(optimizer)


# --- checkpoints ---------------------------------------------------------------------------------


def state_of(net: nn.Module, optimizer: MARS) -> dict[str, Any]:
    model, optim = get_state_dict(net, optimizer)
    return {"model": model, "optim": optim}


def save_and_go_on(folder: str, rule: str, at: int, to: int) -> tuple[list[float], list[Tensor]]:
    net = make_net(torch.float64)
    shard_all(net)
    optimizer = make(net, rule)
    train(net, optimizer, range(at), torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoint.save(state_of(net, optimizer), checkpoint_id=folder)
    return end_of(net, optimizer, range(at, to))


def resume(folder: str, rule: str, at: int, to: int) -> tuple[list[float], list[Tensor]]:
    net = make_net(torch.float64)
    shard_all(net)
    optimizer = make(net, rule)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = state_of(net, optimizer)
        checkpoint.load(state, checkpoint_id=folder)
        set_state_dict(
            net, optimizer, model_state_dict=state["model"], optim_state_dict=state["optim"]
        )
    return end_of(net, optimizer, range(at, to))


def save_by_names(folder: str, at: int, to: int) -> tuple[list[float], list[Tensor], Any]:
    """As the pilot saves a run: states by names of parameters, the rest as JSON."""
    net = make_net(torch.float64)
    shard_all(net)
    optimizer = make(net, "adamw")
    train(net, optimizer, range(at), torch.float64)
    memory = json.dumps(optimizer.memory())
    apart = distributed.new_group(backend="gloo")  # as the pilot does, whose loop goes on meanwhile
    end_save(begin_save(Path(folder), net, optimizer, apart))
    return *end_of(net, optimizer, range(at, to)), memory


def resume_by_names(folder: str, at: int, to: int, memory: str) -> tuple[list[float], list[Tensor]]:
    net = make_net(torch.float64)
    shard_all(net)
    optimizer = make(net, "adamw")
    load_state(Path(folder), net, optimizer, distributed.group.WORLD)
    optimizer.remember(json.loads(memory))
    return end_of(net, optimizer, range(at, to))


def end_of(net: nn.Module, optimizer: MARS, steps: range) -> tuple[list[float], list[Tensor]]:
    train(net, optimizer, steps, torch.float64)
    return gamma_of(optimizer), [whole(p.detach()).clone() for p in net.parameters()]

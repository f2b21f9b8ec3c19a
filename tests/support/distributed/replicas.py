"""Work of the processes under DistributedDataParallel, each on its own part of the batch."""

from __future__ import annotations

import contextlib

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from .work import batch, compare, dtype_of, make_net, make_optimizer


def steps_like_one_process(rule: str, correction: str, set_to_none: bool) -> None:
    dtype = torch.float64 if correction == "exact" else dtype_of(rule)
    alone, net = make_net(dtype), make_net(dtype)
    one, other = (make_optimizer(m, rule, correction) for m in (alone, net))
    replica = DistributedDataParallel(net, gradient_as_bucket_view=True)
    rank, world = distributed.get_rank(), distributed.get_world_size()
    for step in range(4):
        x, y = batch(step, dtype)
        mine = slice(rank * len(x) // world, (rank + 1) * len(x) // world)

        def loss(model: nn.Module, part: slice, x: torch.Tensor = x, y: torch.Tensor = y) -> None:
            (model(x[part]) - y[part]).square().mean().backward()

        for model, optimizer, part in ((alone, one, slice(None)), (replica, other, mine)):
            if correction == "exact":
                with optimizer.previous_point():
                    loss(model, part)
            optimizer.zero_grad(set_to_none=set_to_none)
            loss(model, part)
            optimizer.step()
    compare(net, alone)


def accumulates_like_one_process(set_to_none: bool, without_sync: bool) -> None:
    """Two micro-batches a step, exact: the pass at x_{t-1} of the second comes between them."""
    dtype = torch.float64
    alone, net = make_net(dtype), make_net(dtype)
    one, other = (make_optimizer(m, "adamw", "exact") for m in (alone, net))
    replica = DistributedDataParallel(net, gradient_as_bucket_view=True)
    rank, world = distributed.get_rank(), distributed.get_world_size()
    for step in range(4):
        for model, optimizer in ((alone, one), (replica, other)):
            optimizer.zero_grad(set_to_none=set_to_none)
            for micro in range(2):
                x, y = batch(2 * step + micro, dtype)
                if model is replica:
                    x, y = x.chunk(world)[rank], y.chunk(world)[rank]
                quiet = without_sync and micro == 0 and model is replica
                with replica.no_sync() if quiet else contextlib.nullcontext():
                    with optimizer.previous_point():
                        (model(x) - y).square().mean().backward()
                    (model(x) - y).square().mean().backward()
            optimizer.step()
    compare(net, alone)

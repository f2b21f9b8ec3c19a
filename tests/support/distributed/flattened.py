"""Work of the processes under FSDP1 and ZeroRedundancyOptimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from mars_optim import MARS, MARSM, MARSAdamW, MARSLion, param_groups, variance_reduce

from .work import batch, compare, make_net, train

ELEMENTWISE = dict(lr=1e-2, gamma=0.1, clip=None, optimize_1d=True)
Make = Callable[[Iterable[nn.Parameter]], Optimizer]


def wrapped(params: Iterable[nn.Parameter], **options: Any) -> Optimizer:
    optimizer = torch.optim.AdamW(params, lr=1e-2, betas=(0.95, 0.99))
    variance_reduce(optimizer, gamma=0.1, **options)
    return optimizer


RIGHT: dict[str, Make] = {
    "adamw": lambda params: MARSAdamW(params, **ELEMENTWISE),
    "folded": lambda params: MARSAdamW(params, correction="folded", **ELEMENTWISE),
    "exact": lambda params: MARSAdamW(params, correction="exact", **ELEMENTWISE),
    "lion": lambda params: MARSLion(params, **ELEMENTWISE),
    "by lr": lambda params: MARSAdamW(params, gamma_schedule="lr", **ELEMENTWISE),
    "wrapped": lambda params: wrapped(params, optimize_1d=True, clip=None),
    "plain": lambda params: MARSAdamW(params, **{**ELEMENTWISE, "gamma": 0.0}),
}
WRONG: dict[str, tuple[Make, str]] = {
    "adamw": (lambda params: MARSAdamW(params), "all would get the AdamW of vectors"),
    "lion": (lambda params: MARSLion(params, clip=None), "all would get the AdamW of vectors"),
    "muon": (lambda params: MARSM(params), "all would get the AdamW of vectors"),
    "muon of all": (
        lambda params: MARSM(params, optimize_1d=True, clip=None),
        "all would get the AdamW of vectors",
    ),
    "clip": (lambda params: MARSAdamW(params, optimize_1d=True), "clip=1 needs the norm"),
    "plain": (lambda params: MARSAdamW(params, gamma=0.0), "all would get the AdamW of vectors"),
    "auto": (lambda params: MARSAdamW(params, gamma="auto"), "all would get the AdamW of vectors"),
    "auto of all": (
        lambda params: MARSAdamW(params, gamma="auto", optimize_1d=True),
        "gamma_schedule='auto' would choose a different gamma on every rank",
    ),
    "cautious": (
        lambda params: MARSAdamW(params, cautious=True, **ELEMENTWISE),
        "cautious=True needs the mean over a whole tensor",
    ),
    "wrapped": (wrapped, "variance_reduce corrects no 1-D tensor"),
    "wrapped, clip": (
        lambda params: wrapped(params, optimize_1d=True),
        "clip=1 needs the norm of a whole tensor",
    ),
}


def flattened(net: nn.Module, use_orig_params: bool, strategy: str = "FULL_SHARD") -> nn.Module:
    return FullyShardedDataParallel(
        net,
        use_orig_params=use_orig_params,
        sharding_strategy=ShardingStrategy[strategy],
        device_id=torch.device("cpu"),
    )


def fsdp1_equals_one_process(choice: str, use_orig_params: bool) -> None:
    dtype = torch.float64
    alone, net = make_net(dtype), make_net(dtype)
    fsdp = flattened(net, use_orig_params)
    train(alone, RIGHT[choice](alone.parameters()), range(4), dtype)
    train(fsdp, RIGHT[choice](fsdp.parameters()), range(4), dtype)
    with FullyShardedDataParallel.summon_full_params(fsdp):
        whole = [p.detach().clone() for p in net.parameters()]
    for found, p in zip(whole, alone.parameters(), strict=True):
        torch.testing.assert_close(found, p.detach(), rtol=1e-9, atol=1e-9)


def fsdp1_is_refused(choice: str, use_orig_params: bool) -> str:
    """By the constructor, so before the first step."""
    fsdp = flattened(make_net(torch.float32), use_orig_params)
    make, _ = WRONG[choice]
    try:
        make(fsdp.parameters())
    except ValueError as error:
        return str(error)
    return ""


def groups_made_before_flattening_are_refused() -> str:
    net = make_net(torch.float32)
    optimizer = MARSAdamW(net.parameters(), lr=1e-2)
    fsdp = flattened(net, use_orig_params=True)
    try:
        train(fsdp, optimizer, range(1), torch.float32)
    except ValueError as error:
        return str(error)
    return ""


def replicas_of_fsdp1_keep_whole_tensors() -> None:
    net, alone = make_net(torch.float64), make_net(torch.float64)
    fsdp = flattened(net, use_orig_params=True, strategy="NO_SHARD")
    for model in (fsdp, alone):
        optimizer = MARSAdamW(model.parameters(), lr=1e-2, gamma=0.1, clip=0.5)
        train(model, optimizer, range(4), torch.float64)
    compare(net, alone, rtol=1e-9)


# --- ZeroRedundancyOptimizer --------------------------------------------------------------------

DEALT: dict[str, Callable[[nn.Module], tuple[Any, type[Optimizer], dict[str, Any]]]] = {
    "adamw, sorted before": lambda net: (
        param_groups(net, names=False, lr=1e-2, gamma=0.1, clip=0.5),
        MARSAdamW,
        {},
    ),
    "muon, sorted before": lambda net: (
        param_groups(net, names=False, rule="muon", lr=1e-2, gamma=0.1, clip=0.5),
        MARS,
        {},
    ),
    "adamw, vectors too": lambda net: (
        net.parameters(),
        MARSAdamW,
        {**ELEMENTWISE, "clip": 0.5},
    ),
}


def zero_redundancy(params: Any, **options: Any) -> Any:
    from torch.distributed.optim import ZeroRedundancyOptimizer  # warns: not in pytest's process

    return ZeroRedundancyOptimizer(params, **options)


def dealt(net: nn.Module, choice: str) -> Any:
    params, cls, options = DEALT[choice](net)
    return zero_redundancy(params, optimizer_class=cls, **options)


def whole_optimizer(net: nn.Module, choice: str) -> Optimizer:
    params, cls, options = DEALT[choice](net)
    return cls(params, **options)


def train_replica(net: nn.Module, optimizer: Optimizer, steps: range) -> None:
    rank, world = distributed.get_rank(), distributed.get_world_size()
    for step in steps:
        x, y = batch(step, torch.float64)
        mine = slice(rank * len(x) // world, (rank + 1) * len(x) // world)
        optimizer.zero_grad()
        (net(x[mine]) - y[mine]).square().mean().backward()
        optimizer.step()


def dealt_out_equals_replicas(choice: str) -> None:
    """With a resumption in the middle."""
    nets = [make_net(torch.float64) for _ in range(2)]
    ddps = [DistributedDataParallel(net) for net in nets]
    zero, ddp = dealt(nets[0], choice), whole_optimizer(nets[1], choice)
    for net, optimizer in zip(ddps, (zero, ddp), strict=True):
        train_replica(net, optimizer, range(3))
    zero.consolidate_state_dict(to=0)
    saved = [zero.state_dict() if distributed.get_rank() == 0 else None]
    distributed.broadcast_object_list(saved, src=0)
    again = dealt(nets[0], choice)
    assert saved[0] is not None
    again.load_state_dict(saved[0])
    for net, optimizer in zip(ddps, (again, ddp), strict=True):
        train_replica(net, optimizer, range(3, 6))
    compare(nets[0], nets[1], rtol=1e-12)


def dealt_out_is_refused(options: dict[str, Any]) -> str:
    net = make_net(torch.float64)
    try:
        zero_redundancy(net.parameters(), optimizer_class=MARSAdamW, **options)
    except ValueError as error:
        return str(error)
    return ""


def gamma_edited_later_is_refused() -> str:
    net = make_net(torch.float64)
    options = {**ELEMENTWISE, "correction": "folded"}
    zero = zero_redundancy(net.parameters(), optimizer_class=MARSAdamW, **options)
    zero.param_groups[0]["gamma_schedule"] = "auto"
    try:
        train_replica(net, zero, range(1))
    except ValueError as error:
        return str(error)
    return ""


def wrapping_the_outside_is_refused() -> str:
    net = make_net(torch.float64)
    zero = zero_redundancy(net.parameters(), optimizer_class=torch.optim.AdamW, lr=1e-2)
    try:
        variance_reduce(zero)
    except ValueError as error:
        return str(error)
    return ""


def wrapping_the_inside_equals_replicas() -> None:
    nets = [make_net(torch.float64) for _ in range(2)]
    ddps = [DistributedDataParallel(net) for net in nets]
    zero = zero_redundancy(nets[0].parameters(), optimizer_class=torch.optim.AdamW, lr=1e-2)
    ddp = torch.optim.AdamW(nets[1].parameters(), lr=1e-2)
    variance_reduce(zero.optim, gamma=0.1, clip=0.5, optimize_1d=True)
    variance_reduce(ddp, gamma=0.1, clip=0.5, optimize_1d=True)
    for net, optimizer in zip(ddps, (zero, ddp), strict=True):
        train_replica(net, optimizer, range(4))
    compare(nets[0], nets[1], rtol=1e-12)

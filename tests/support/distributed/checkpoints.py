"""Work of the processes around torch.distributed.checkpoint."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from mars_optim import MARS

from .work import compare, dtype_of, make_net, make_optimizer, shard_all, train, whole


def begin(rule: str, correction: str) -> tuple[nn.Module, MARS]:
    net = make_net(dtype_of(rule))
    shard_all(net)
    return net, make_optimizer(net, rule, correction)


def state_of(net: nn.Module, optimizer: MARS) -> dict[str, Any]:
    model, optim = get_state_dict(net, optimizer)
    return {"model": model, "optim": optim}


def save_and_go_on(folder: str, rule: str, correction: str) -> list[Tensor]:
    """Three steps, a checkpoint, three more: every parameter and buffer afterwards, whole."""
    net, optimizer = begin(rule, correction)
    train(net, optimizer, range(3), dtype_of(rule))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoint.save(state_of(net, optimizer), checkpoint_id=folder)
    train(net, optimizer, range(3, 6), dtype_of(rule))
    return everything(net, optimizer)


def resume(folder: str, rule: str, correction: str) -> list[Tensor]:
    """In new objects, perhaps of another world size; compared with a run that never stopped."""
    net, optimizer = begin(rule, correction)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = state_of(net, optimizer)
        checkpoint.load(state, checkpoint_id=folder)
        set_state_dict(
            net, optimizer, model_state_dict=state["model"], optim_state_dict=state["optim"]
        )
    train(net, optimizer, range(3, 6), dtype_of(rule))
    alone = make_net(dtype_of(rule))
    one = make_optimizer(alone, rule, correction)
    train(alone, one, range(6), dtype_of(rule))
    compare(net, alone)
    for p, q in zip(net.parameters(), alone.parameters(), strict=True):
        assert optimizer.state[p].keys() == one.state[q].keys()
        assert float(optimizer.state[p]["step"]) == 6
    return everything(net, optimizer)


def everything(net: nn.Module, optimizer: MARS) -> list[Tensor]:
    found = []
    for param in net.parameters():
        state = optimizer.state[param]
        found += [whole(param.detach()), *(whole(state[key]) for key in sorted(state))]
    return [x.clone() for x in found]


def same_bits(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))

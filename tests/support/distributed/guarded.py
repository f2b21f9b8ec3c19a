"""Work of the processes under a guard."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from mars_optim import Baseline, Guard, GuardSettings, MARSAdamW

from .work import batch, make_net, whole

HISTORY = Baseline([1.0 + 0.01 * (i % 5) for i in range(120)])
QUICK = GuardSettings(every=2, window=10, patience=4, settle=2, checkpoint_every=5)


def goes_back_together(sharded: bool, folder: str | None) -> tuple[int, int, list[list[float]]]:
    """The loss of the last rank alone is bad; all go back to where all were at step 5."""
    net = make_net(torch.float32)
    if sharded:
        fully_shard(net)
        model: nn.Module = net
    else:
        model = DistributedDataParallel(net)
    optimizer: Any = MARSAdamW(model.parameters(), lr=0.01)
    guard = Guard(
        model,
        optimizer,
        baseline=HISTORY,
        settings=QUICK,
        snapshots="memory" if folder is None else Path(folder),
    )
    last = distributed.get_rank() == distributed.get_world_size() - 1
    at_five: list[torch.Tensor] = []
    back = None
    for step in range(1, 40):
        x, y = batch(step, torch.float32)
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1e9)
        optimizer.step()
        if step == 5:
            at_five = [whole(p).clone() for p in model.parameters()]
        bad = math.nan if step == 11 and last else 1.0
        back = guard.watch(loss=torch.tensor(bad), grad_norm=norm, step_seconds=1.0)
        if back:
            break
    assert back is not None
    assert type(back.optimizer) is torch.optim.AdamW
    for p, kept in zip(model.parameters(), at_five, strict=True):
        assert torch.equal(whole(p), kept)
    back.optimizer.zero_grad()
    x, y = batch(99, torch.float32)
    (model(x) - y).square().mean().backward()
    back.optimizer.step()
    ends = [whole(p).detach().flatten()[:3].tolist() for p in model.parameters()]
    return back.step, back.detected, ends

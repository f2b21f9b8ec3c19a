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
from mars_optim.guard.stores import DiskStore

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


def goes_on_in_other_ranks(
    folder: str, state: dict[str, Any] | None, lost: bool
) -> tuple[dict[str, Any], int, bool, list[float]]:
    """A run to step 12, or from there to a bad loss; its state, and where it went back to.

    Args:
        folder: of the snapshots.
        state: of the guard and the net at step 12; None for the run that ends there.
        lost: whether the last rank has lost its newest snapshot.
    """
    torch.manual_seed(0)
    net = make_net(torch.float32)
    model = DistributedDataParallel(net)
    optimizer: Any = MARSAdamW(model.parameters(), lr=0.01)
    guard = Guard(model, optimizer, baseline=HISTORY, settings=QUICK, snapshots=Path(folder))
    step = 0
    if state is not None:
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        last = distributed.get_rank() == distributed.get_world_size() - 1
        if lost and last:
            for path in Path(folder).glob(f"step-000000010*.rank{distributed.get_rank()}.pt"):
                path.unlink()
        guard.load_state_dict(state["guard"])
        step = guard.step
    back = None
    while back is None and step < (40 if state else 12):
        step += 1
        x, y = batch(step, torch.float32)
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        loss = math.nan if state and step >= 17 else 1.0
        back = guard.watch(loss=torch.tensor(loss), step_seconds=1.0)
    ends = [p.detach().flatten()[0].item() for p in model.parameters()]
    kept = {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
    kept["guard"] = guard.state_dict()
    return kept, -1 if back is None else back.step, bool(back and back.clean), ends


def has_a_full_disk_on_one_rank(folder: str) -> tuple[int, list[str]]:
    """From step 10 on the last rank can write no more; the step gone back to, and the files."""
    model = DistributedDataParallel(make_net(torch.float32))
    optimizer: Any = MARSAdamW(model.parameters(), lr=0.01)
    guard = Guard(model, optimizer, baseline=HISTORY, settings=QUICK, snapshots=Path(folder))
    last = distributed.get_rank() == distributed.get_world_size() - 1
    real, back, step = DiskStore.put, None, 0

    def full(*args: Any, **options: Any) -> None:
        raise OSError("no space left")

    try:
        while back is None and step < 60:
            step += 1
            if step == 10 and last:
                DiskStore.put = full  # type: ignore[method-assign]
            x, y = batch(step, torch.float32)
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()
            back = guard.watch(loss=1.0 if step < 41 else math.nan, step_seconds=1.0)
    finally:
        DiskStore.put = real  # type: ignore[method-assign]
    assert back is not None
    return back.step, sorted(p.name[:14] for p in Path(folder).iterdir())

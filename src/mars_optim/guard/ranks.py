"""Agreement between the processes of a run; alone, each of these is its own answer."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import torch
import torch.distributed as dist


def world_size() -> int:
    """Number of processes in the job."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def new_name(device: torch.device) -> str:
    """Sixteen random hexadecimal digits, the same on all ranks."""
    number = secrets.randbits(63)
    if world_size() > 1:
        told = torch.tensor(number, device=device)
        dist.broadcast(told, src=0)
        number = int(told)
    return f"{number:016x}"


def held_by_all(steps: Sequence[int], device: torch.device) -> list[int]:
    """Those of ``steps`` that every rank has, in order."""
    if world_size() == 1:
        return sorted(steps)
    most = torch.tensor(len(steps), device=device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    if not int(most):
        return []
    mine = torch.full((int(most),), -1, dtype=torch.int64, device=device)
    mine[: len(steps)] = torch.tensor(list(steps), dtype=torch.int64, device=device)
    rows = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(rows, mine)
    return sorted(set.intersection(*(set(row.tolist()) for row in rows)) - {-1})


def true_on_all(value: bool, device: torch.device) -> bool:
    """Whether it is true on every rank."""
    if world_size() == 1:
        return value
    least = torch.tensor(int(value), device=device)
    dist.all_reduce(least, op=dist.ReduceOp.MIN)
    return bool(least)

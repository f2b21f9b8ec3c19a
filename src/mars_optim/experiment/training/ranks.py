"""The processes that make one run together, as torchrun and ``accelerate launch`` start them."""

from __future__ import annotations

import atexit
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.utils import _pytree as pytree

from ...errors import UserError
from ..plan import RunSpec
from ..records import RunWriter
from ..tasks.address import seed_of


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's place among those of the run.

    Args:
        rank: of this process, from 0.
        world: number of processes; one needs no process group.
        device: of this process.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def sums(self, *values: float) -> list[float]:
        """Each value summed over all processes; in one process, what was given."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return list(map(float, total.tolist()))

    def firsts(self, value: Any) -> Any:
        """The first process's value, in all."""
        if self.world == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def agree_on_buffers(self, model: nn.Module) -> None:
        """Give all processes the first one's buffers, such as BatchNorm's running statistics."""
        if self.world > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)

    def place(self, batch: Any) -> Any:
        """A batch's tensors, nested at will, on this process's device."""
        return pytree.tree_map(lambda x: x.to(self.device) if hasattr(x, "to") else x, batch)


def alone() -> Ranks:
    """This process for itself, on its accelerator if it has one."""
    return Ranks(0, 1, _device(1))


def join_ranks() -> Ranks:
    """Join the processes named by the environment, once; alone where it names none.

    Reads RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. The group is NCCL's on CUDA,
    with gloo for what is on the CPU.

    Raises:
        UserError: if one of them is missing, or the machine has fewer devices than processes.
    """
    if distributed.is_initialized():
        rank, world = distributed.get_rank(), distributed.get_world_size()
        return Ranks(rank, world, _device(world))
    world = _integer("WORLD_SIZE", 1)
    if world == 1:
        return alone()
    missing = [n for n in ("RANK", "MASTER_ADDR", "MASTER_PORT") if n not in os.environ]
    if missing:
        raise UserError(
            f"WORLD_SIZE = {world}, but {missing[0]} is not set: start the processes by torchrun "
            "or accelerate launch, or unset WORLD_SIZE"
        )
    device = _device(world)
    backend = "gloo"
    if device.type != "cpu":
        torch.accelerator.set_device_index(device)
        own = distributed.get_default_backend_for_device(device)
        backend = f"cpu:gloo,{device.type}:{own}"
    store, rank, world = next(rendezvous("env://"))
    store = PrefixStore(f"attempt {_attempt()}", store)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world)
    atexit.register(_leave)
    return Ranks(rank, world, device)


def run_writer(runs: Path, spec: RunSpec, environment: dict[str, Any]) -> RunWriter:
    """The writer of a run: the first process's writes, the others' only remember."""
    ranks = join_ranks()
    many = {"processes": ranks.world} if ranks.world > 1 else {}
    return RunWriter(runs, spec, {**environment, **many}, silent=not ranks.first)


def seed_all(*address: int) -> None:
    """Seed Python, NumPy and torch from an address, such as (seed, step, micro-batch).

    A step's random numbers (dropout) are then a function of its address, as its data are: the same
    whatever ran before, in whichever process.
    """
    seed = seed_of("random", *address)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if torch.accelerator.is_available():
        torch.manual_seed(seed)  # of all devices; without one it would take most of a small step
    else:
        torch.default_generator.manual_seed(seed)


def _device(world: int) -> torch.device:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return torch.device("cpu")
    if world == 1:
        return accelerator
    local, count = _integer("LOCAL_RANK", 0), torch.accelerator.device_count()
    if local >= count:
        raise UserError(
            f"LOCAL_RANK = {local}, but this machine has {count} devices: start at most {count} "
            f"processes on it (--nproc-per-node={count})"
        )
    return torch.device(accelerator.type, local)


def _integer(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise UserError(f"{name} = {text!r} in the environment must be a whole number")
    return int(text)


def _attempt() -> int:
    """Which start by torchrun this is: its store still holds the addresses of earlier ones.

    Agents on several machines count apart, so there it has to be a new store for each start
    (TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1).
    """
    agents = _integer("GROUP_WORLD_SIZE", 1)
    return _integer("TORCHELASTIC_RESTART_COUNT", 0) if agents == 1 else 0


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()

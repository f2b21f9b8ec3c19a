"""States to go back to: a bounded number of copies in memory or on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from ..files import whole_file
from ..optim.distributed.sharded import is_sharded

Snapshot = dict[str, Any]


class Stateful(Protocol):
    """Anything with a state: a scheduler, a GradScaler, a data loader."""

    def state_dict(self) -> Any:
        """Its state."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:
        """Put it back."""
        ...


class MemoryStore:
    """Copies in main memory; sharded tensors are copied where they are."""

    def __init__(self) -> None:
        self._kept: dict[int, Snapshot] = {}

    def steps(self) -> list[int]:
        """Steps of the snapshots kept, in order."""
        return sorted(self._kept)

    def put(self, step: int, snapshot: Snapshot, *, copy: bool = True) -> None:
        """Keep a copy, or the thing itself where nobody else has it."""
        self._kept[step] = copied(snapshot) if copy else snapshot

    def get(self, step: int) -> Snapshot:
        """The copy, which stays as it is if what it holds is loaded by copying."""
        return self._kept[step]

    def drop(self, step: int) -> None:
        """Forget one."""
        del self._kept[step]


class DiskStore:
    """Files ``step-000000200.pt`` in a folder, one set per rank, each written whole or not at all.

    Args:
        folder: made if it does not exist.
        rank: of this process; None for a single one.
    """

    def __init__(self, folder: Path, rank: int | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.suffix = ".pt" if rank is None else f".rank{rank}.pt"

    def steps(self) -> list[int]:
        """Steps of the files there, in order."""
        names = [p.name.removesuffix(self.suffix) for p in self.folder.glob(f"step-*{self.suffix}")]
        return sorted(int(n[5:]) for n in names if n[5:].isdigit())

    def put(self, step: int, snapshot: Snapshot, *, copy: bool = True) -> None:
        """Write one: beside its place, to the disk, then renamed."""
        with whole_file(self._path(step), "wb") as file:
            torch.save(snapshot, file)

    def get(self, step: int) -> Snapshot:
        """Read one."""
        snapshot: Snapshot = torch.load(self._path(step), map_location="cpu", weights_only=True)
        return snapshot

    def drop(self, step: int) -> None:
        """Delete one."""
        self._path(step).unlink(missing_ok=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:09}{self.suffix}"


def store_for(where: str | Path) -> MemoryStore | DiskStore:
    """``"memory"``, or a folder."""
    if where == "memory":
        return MemoryStore()
    many = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return DiskStore(Path(where), dist.get_rank() if many else None)


def copied(value: Any) -> Any:
    """A copy in which no tensor shares memory with ``value``, in main memory."""
    if isinstance(value, Tensor):
        if is_sharded(value):
            return value.detach().clone()
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: copied(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(entry) for entry in value)
    return value


def rng_state() -> dict[str, Any]:
    """State of torch's generators, on the CPU and on this process's accelerator."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put :func:`rng_state` back."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])

"""Where snapshots are kept: a bounded number of copies, in memory or in files."""

from __future__ import annotations

import io
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import DamagedError
from ..files import whole_file
from .ranks import new_name, world_size
from .snapshots import Snapshot, copied


class MemoryStore:
    """Copies in main memory; sharded tensors are copied where they are."""

    run: str | None = None  # it has no files
    place, on_disk = "memory", False

    def __init__(self) -> None:
        self._kept: dict[int, Snapshot] = {}

    def check(self, snapshot: Snapshot) -> None:
        """Whatever can be copied can be taken back."""

    def steps(self) -> list[int]:
        """Steps of the snapshots kept, in order."""
        return sorted(self._kept)

    def put(self, step: int, snapshot: Snapshot, *, copy: bool = True) -> None:
        """Keep a copy, or the thing itself where nobody else has it."""
        self._kept[step] = copied(snapshot) if copy else snapshot

    def get(self, step: int) -> Snapshot:
        """The copy, which stays as it is if what it holds is loaded by copying."""
        return self._kept[step]

    def try_to_get(self, step: int) -> None:
        """It is there."""

    def drop(self, step: int) -> None:
        """Forget one."""
        del self._kept[step]

    def drop_others(self) -> None:
        """Nobody else's can be here."""


class DiskStore:
    """Files ``step-000000200-RUN.pt`` in a folder, one set per rank, each whole or not at all.

    Only those of its own run are ever read, so that two runs in one folder cannot take each
    other's state.

    Args:
        folder: made if it does not exist.
        rank: of this process; None for a single one.
        run: name of the run; "" for files without one.

    Raises:
        ValueError: if there can be no such folder.
    """

    on_disk = True

    def __init__(self, folder: Path, rank: int | None, run: str = "") -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"snapshots={str(folder)!r} cannot be made a folder ({error}): name another one, "
                "or 'memory'"
            ) from None
        self.folder, self.run = folder, run
        self.suffix = ".pt" if rank is None else f".rank{rank}.pt"

    @property
    def place(self) -> str:
        """The folder, for messages."""
        return str(self.folder)

    def check(self, snapshot: Snapshot) -> None:
        """See that what is beside the tensors can be read back.

        Raises:
            ValueError: naming what cannot.
        """
        named = {f"extras[{name!r}]": extra for name, extra in snapshot["extras"].items()}
        named |= {key: snapshot[key] for key in ("position", "model", "optimizer")}
        for name, value in named.items():
            if reason := _unreadable(value):
                raise ValueError(
                    f"{name} cannot be read back from a file in snapshots={self.place!r} "
                    f"({reason}): use numbers, strings, lists, tuples, dicts and tensors "
                    "(int(x) of a numpy number), or snapshots='memory'"
                )

    def steps(self) -> list[int]:
        """Steps of this run's files there, in order."""
        return sorted(step for step, run, _ in self._files() if run == self.run)

    def put(self, step: int, snapshot: Snapshot, *, copy: bool = True) -> None:
        """Write one: beside its place, to the disk, then renamed.

        Raises:
            OSError: naming the file, if it cannot be written.
        """
        try:
            with whole_file(self._path(step), "wb") as file:
                torch.save(snapshot, file)
        except (OSError, RuntimeError) as error:  # torch's writer hides the file's own error
            own = error.__context__ if isinstance(error.__context__, OSError) else error
            raise OSError(f"{self._path(step)} cannot be written: {_line(own)}") from error

    def get(self, step: int) -> Snapshot:
        """Read one.

        Raises:
            DamagedError: naming the file, if it cannot be read.
        """
        path = self._path(step)
        try:
            snapshot: Snapshot = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises whatever a damaged file leads it to
            raise DamagedError(f"{path} cannot be read: {_line(error)}") from None
        return snapshot

    def try_to_get(self, step: int) -> None:
        """See that one is read back without running code; its tensors stay in the file.

        Raises:
            ValueError: naming the file, if not.
        """
        path = self._path(step)
        try:
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{path} cannot be read back ({_kind(error)}), since model or optimizer holds "
                "more than tensors and plain data: use snapshots='memory'"
            ) from None
        except (OSError, RuntimeError):
            return  # a file system without mmap

    def drop(self, step: int) -> None:
        """Delete one."""
        self._path(step).unlink(missing_ok=True)

    def drop_others(self) -> None:
        """Delete this rank's files of other runs."""
        for _, run, path in self._files():
            if run != self.run:
                path.unlink(missing_ok=True)

    def _files(self) -> list[tuple[int, str, Path]]:
        name = re.compile(rf"step-(\d+)(?:-([0-9a-f]{{16}}))?{re.escape(self.suffix)}")
        found = [(name.fullmatch(path.name), path) for path in self.folder.glob("step-*")]
        return [(int(m[1]), m[2] or "", path) for m, path in found if m]

    def _path(self, step: int) -> Path:
        run = f"-{self.run}" if self.run else ""
        return self.folder / f"step-{step:09}{run}{self.suffix}"


def store_for(where: str | Path, device: torch.device) -> MemoryStore | DiskStore:
    """``"memory"``, or a folder, under a new name of the run that all ranks share.

    Raises:
        ValueError: if it is neither, or there can be no such folder.
    """
    if not isinstance(where, str | Path) or not str(where):
        raise ValueError(f"snapshots={where!r} must be 'memory' or the path of a folder")
    if where == "memory":
        return MemoryStore()
    rank = dist.get_rank() if world_size() > 1 else None
    return DiskStore(Path(where), rank, new_name(device))


def _unreadable(value: Any) -> str:
    """Why torch.load does not read it without running code; empty if it does."""
    file = io.BytesIO()
    try:
        torch.save(_skeleton(value), file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception as error:  # whatever an object of the user's raises
        return _kind(error)
    return ""


def _skeleton(value: Any) -> Any:
    """The same without its tensors; objects of any but plain kinds stay as they are."""
    if isinstance(value, Tensor):
        return None
    if type(value) in (dict, OrderedDict):
        return {key: _skeleton(entry) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return [_skeleton(entry) for entry in value]
    return value


def _kind(error: Exception) -> str:
    """The kind of object that torch.load does not take, or the first line of what it says."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f"it holds {found[1]}" if found else _line(error)


def _line(error: BaseException) -> str:
    """The first line of what it says."""
    return (str(error) or type(error).__name__).splitlines()[0]

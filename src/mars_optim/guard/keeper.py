"""The snapshots of a run: which are taken, which are kept, which one is gone back to."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from ..errors import DamagedError
from ..optim.distributed.sharded import local
from .ranks import held_by_all, true_on_all, world_size
from .snapshots import Snapshot
from .stores import store_for

MOMENTS = ("exp_avg", "exp_avg_sq")


class SnapshotKeeper:
    """Takes snapshots of one run, and finds the one to go back to.

    What fails costs the snapshot, not the run.

    Args:
        where: "memory", or a folder.
        keep: snapshots kept.
        device: that messages between ranks go by.

    Raises:
        ValueError: if ``where`` is neither.
    """

    def __init__(self, where: str | Path, keep: int, device: torch.device) -> None:
        self._store, self._keep, self._device = store_for(where, device), keep, device

    @property
    def run(self) -> str | None:
        """Name of the run in its files."""
        return self._store.run

    def check(self, snapshot: Snapshot) -> None:
        """Raise ValueError, naming what, if some of it could not be read back."""
        self._store.check(snapshot)

    def begin(self, first: Snapshot) -> None:
        """Keep the first one, itself and not a copy; those of an earlier run are dropped.

        Raises:
            OSError: if it cannot be written.
            ValueError: if it cannot be read back.
        """
        self._store.drop_others()
        self._store.put(first["step"], first, copy=False)
        self._store.try_to_get(first["step"])

    def resume(self, run: str | None, size: int, state: Snapshot) -> bool:
        """Go on with the snapshots of a run, or from its state alone.

        Args:
            run: name of the run in its files; None where it had none.
            size: its number of processes; another number cannot read its files.
            state: of the run; it becomes the first snapshot where not all ranks have one, even
                in an alarm, since there is nothing else.

        Returns:
            Whether it did.

        Raises:
            OSError: if it cannot be written.
        """
        if size == world_size():
            if run is not None:  # of a guard in memory
                self._store.run = run
        elif self._store.on_disk:
            warnings.warn(
                f"the run had {size} processes and has {world_size()} now, which cannot read its "
                f"snapshots in {self._store.place}: the guard can go back to step "
                f"{state['step']} and later only",
                stacklevel=3,
            )
        for later in [step for step in self._store.steps() if step > state["step"]]:
            self._store.drop(later)
        if held_by_all(self._store.steps(), self._device):
            return False
        self._store.check(state)
        self._store.put(state["step"], state)
        return True

    def take(self, state: Snapshot) -> bool:
        """Keep a copy of the run's state; whether all ranks could."""
        step = state["step"]
        if not self._store.steps():
            warnings.warn(
                f"all snapshots of this run in {self._store.place} are gone, so the guard can go "
                f"back to step {step} and later only: another run may use the folder; give each "
                "run its own by snapshots=",
                stacklevel=4,
            )
        written = True
        try:
            self._store.check(state)
            self._store.put(step, state)
        except (OSError, ValueError) as error:
            warnings.warn(f"the guard has no snapshot of step {step}: {error}", stacklevel=4)
            written = False
        if not true_on_all(written, self._device):  # then all go on with their older ones
            if written:
                self._store.drop(step)
            return False
        for old in self._store.steps()[: -self._keep]:
            self._store.drop(old)
        return True

    def fits(self, optimizer: Optimizer) -> bool:
        """Whether weights and moments of all ranks are finite, so that it can be gone back to."""
        return true_on_all(is_finite(optimizer), self._device)

    def newest(self, limit: int) -> Snapshot:
        """The newest of at most step ``limit``, else the oldest, that all ranks can read.

        Raises:
            RuntimeError: if there is none.
        """
        kept = held_by_all(self._store.steps(), self._device)
        old = [step for step in kept if step <= limit]
        for step in [*reversed(old), *kept[len(old) :]]:
            snapshot, reason = None, "another rank cannot read it"
            try:
                snapshot = self._store.get(step)
            except DamagedError as error:
                reason = str(error)
            if true_on_all(snapshot is not None, self._device):
                assert snapshot is not None
                return snapshot
            warnings.warn(f"the snapshot of step {step} is passed over: {reason}", stacklevel=4)
        raise RuntimeError(
            f"the run must go back to AdamW, but no snapshot of it in {self._store.place} can be "
            "read: they are damaged or were deleted, perhaps by another run in the same folder. "
            "Go on from a checkpoint of your own"
        )


@torch.no_grad()
def is_finite(optimizer: Optimizer) -> bool:
    """Whether this process's part of trained weights and moments has no NaN and no infinity."""
    trained = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    tensors: list[Tensor] = list(trained)
    for state in optimizer.state.values():
        tensors += [state[key] for key in MOMENTS if isinstance(state.get(key), Tensor)]
    by_device: dict[torch.device, list[Tensor]] = {}
    for tensor in map(local, tensors):
        if not tensor.is_floating_point() or tensor.element_size() < 2:
            continue  # torch does not tell it of eight bits
        by_device.setdefault(tensor.device, []).append(tensor.isfinite().all())
    return all(bool(torch.stack(found).all()) for found in by_device.values())

"""Checkpoints inside a run: one that was killed goes on, in as many processes or another number.

Of all runs they are torch's distributed ones, so that four processes read what one wrote.
"""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
import time
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.optim.optimizer import Optimizer

from ...errors import UserError
from ...files import read_json, whole_file, write_text
from ..plan import ExecutionOptions, RunSpec
from ..plan.any_arm import is_any
from ..records.run import CHECKPOINTS, branch_point, checkpoint_name
from .contract.trial import has_modes
from .judged import judged
from .position import POSITION, fault_of
from .ranks import Ranks


class Checkpoints:
    """A run's whole checkpoints, each in its folder ``step-NNN``; the newest is gone on from.

    One holds weights, the optimizer's state and the position in the run; random numbers are a
    function of the position. It is written in the background to ``step-NNN.tmp``, which the first
    process renames when all have written, so that a folder under its own name is whole. Those that
    a trunk leaves for its branches stay.

    Args:
        run: the run's folder, on a file system that all processes share.
        spec: of the run.
        execution: says when they are written, which stay, and what happens if none can be used.
        ranks: the processes.
        model: bare.
        optimizer: on its parameters.
    """

    def __init__(
        self,
        run: Path,
        spec: RunSpec,
        execution: ExecutionOptions,
        ranks: Ranks,
        model: nn.Module,
        optimizer: Optimizer,
    ) -> None:
        self._folder, self._execution = run / CHECKPOINTS, execution
        self._seconds = 60.0 * execution.checkpoint_minutes or math.inf
        self._of = {"run_id": spec.run_id, "torch": str(torch.__version__)}
        self._spec, self._runs = spec, run.parent
        self._stay = {checkpoint_name(step) for step in spec.branches}
        self._ranks, self._model, self._optimizer = ranks, model, optimizer
        self._any_class = is_any(spec.arm.optimizer)  # whose state is written whole
        # its own group: the background's messages must not mix with the loop's
        self._group = distributed.new_group(backend="gloo") if ranks.world > 1 else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._last = time.monotonic()

    @property
    def wanted(self) -> bool:
        """Whether there are to be any."""
        execution = self._execution
        by_steps = bool(execution.checkpoint_steps or execution.keep or execution.keep_best)
        return by_steps or bool(self._stay) or math.isfinite(self._seconds)

    @property
    def time_is_up(self) -> bool:
        """Whether the next one is due by this process's clock."""
        return time.monotonic() - self._last >= self._seconds

    def save(self, step: int, position: dict[str, Any]) -> None:
        """Begin to write one, once the one before is written.

        What fails costs it, not the run, but for one that branches start from.

        Args:
            step: number of steps taken.
            position: plain values from which the loop goes on, "best_step" among them.
        """
        from .state_dict import begin_save, whole_state

        self.wait()
        self._ranks.agree_on_buffers(self._model)
        beside = self._folder / f"{checkpoint_name(step)}.tmp"
        if self._ranks.first and beside.is_symlink():  # of somebody else: never written through
            beside.unlink()
        # as text, for the loop goes on and changes what it was made of
        text = json.dumps({"of": self._of, "position": position})
        best = position["best_step"] if self._execution.keep_best else 0
        optimizer = None if self._any_class else self._optimizer
        written = begin_save(beside, self._model, optimizer, self._group, self._judged())
        blob = whole_state(self._optimizer) if self._any_class else b""
        self._writing = self._thread.submit(self._commit, written, beside, text, best, blob)
        self._last = time.monotonic()

    def _judged(self) -> dict[str, Any] | None:
        """The model's state as it is judged, if that is another and the checkpoint may stay."""
        stays = self._execution.keep or self._execution.keep_best
        if not (stays and has_modes(self._optimizer)):
            return None
        with judged(self._optimizer, self._model):
            return copy.deepcopy(self._model.state_dict())

    def wait(self) -> None:
        """Until the one under way is written, or has failed, which is a warning.

        Raises:
            OSError: where it is an error, in a trunk.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            try:
                writing.result()
            except OSError as error:
                text = f"a checkpoint in {self._folder} cannot be written: {error}"
                if self._stay:
                    raise OSError(error.errno, text) from None
                if self._ranks.first:
                    warnings.warn(text, stacklevel=2)

    def close(self) -> None:
        """Wait, and end the background's thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def restore(self) -> dict[str, Any] | None:
        """Take the state of the newest checkpoint that can be used.

        Returns:
            Its position, or None: the run begins at its first step.

        Raises:
            UserError: under ``unusable="refuse"``, if there are some but none can be used.
        """
        if not self.wanted:
            return None
        reason = ""
        for folder, found in self._ranks.firsts(self._whole() if self._ranks.first else None):
            reason = self._unfit(found) or self._load(folder)
            if not reason:
                return dict(found["position"])
            reason = f"{folder} {reason}"
            if "damaged" not in reason and self._execution.unusable == "refuse":
                break
        if reason and self._execution.unusable == "refuse":
            raise UserError(
                f"{reason}; nothing was changed: use another folder, or delete "
                f"{self._folder} to begin this run again"
            )
        if self._ranks.first:
            shutil.rmtree(self._folder, ignore_errors=True)
        return None

    def branch_off(self) -> dict[str, Any]:
        """Take the state that the run's trunk has left for it.

        Returns:
            The trunk's position there.

        Raises:
            UserError: if it is not there, or cannot be used.
        """
        folder = branch_point(self._runs, self._spec)
        try:
            found = self._ranks.firsts(read_json(folder / POSITION) if self._ranks.first else None)
        except UserError:
            found = None
        reason = self._unfit(found, self._spec.trunk) or self._load(folder)
        if reason:
            trunk = self._runs / self._spec.trunk
            raise UserError(
                f"{folder} {reason}, so no branch can start from it: delete {trunk}, and the "
                "pilot repeats it"
            )
        return dict(found["position"])

    def _load(self, folder: Path) -> str:
        """Take a checkpoint's state; why that cannot be, or empty."""
        from .state_dict import OtherModel, Unreadable, load_state

        try:
            load_state(folder, self._model, self._optimizer, self._group, whole=self._any_class)
        except OtherModel as error:
            return f"is of another model: {error}"
        except Unreadable as error:
            return f"is damaged ({error})"
        except ValueError as error:
            raise UserError(
                f"{folder}: the optimizer cannot load its own state ({error}): delete "
                f"{self._folder} to begin this run again"
            ) from None
        return ""

    def _unfit(self, found: Any, of: str = "") -> str:
        """Why a checkpoint, of this run or of another, cannot be gone on from; empty if it can."""
        try:
            run_id, version = found["of"]["run_id"], found["of"]["torch"]
            position = found["position"]
        except (KeyError, TypeError):
            return f"is damaged (no {POSITION})"
        if run_id != (of or self._of["run_id"]):
            return f"is of another run, {run_id}"
        # other versions may compute other bits; where nothing is to be lost, the run begins again
        if version != self._of["torch"] and self._execution.unusable == "begin again":
            return f"was written by torch {version}"
        fault = fault_of(position, self._spec.steps)
        return f"is damaged ({POSITION}: {fault})" if fault else ""

    def _whole(self) -> list[tuple[Path, Any]]:
        """Folders and what their position's files hold, the newest first; the rest is removed."""
        for left in self._folder.glob("*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
        found = []
        for folder in _folders(self._folder)[::-1]:
            try:
                found.append((folder, read_json(folder / POSITION)))
            except UserError:
                found.append((folder, None))
        return found

    def _commit(
        self, written: Future[Any], beside: Path, text: str, best: int, blob: bytes
    ) -> None:
        """In the background: once all processes have written, make it a whole one."""
        from .state_dict import WHOLE, end_save

        try:
            end_save(written)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        if not self._ranks.first:
            return
        if blob:
            with whole_file(beside / WHOLE, "wb") as file:
                file.write(blob)
        write_text(beside / POSITION, text)
        whole = beside.with_suffix("")
        if whole.exists():  # one that could not be used
            _remove(whole)
        beside.rename(whole)
        for old in _folders(self._folder)[: -max(1, self._execution.keep)]:
            if old.name not in self._stay | {checkpoint_name(best)}:
                _remove(old)


def _folders(checkpoints: Path) -> list[Path]:
    """Folders of whole checkpoints, the oldest first."""
    return sorted(p for p in checkpoints.glob("step-*") if re.fullmatch(r"step-\d{12}", p.name))


def _remove(folder: Path) -> None:
    """So that what is half removed is not taken for a whole one."""
    away = folder.with_name(folder.name + ".old.tmp")
    folder.rename(away)
    shutil.rmtree(away, ignore_errors=True)

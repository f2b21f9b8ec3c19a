"""Checkpoints inside a run: a long one that was killed goes on, to the same bits."""

from __future__ import annotations

import math
import os
import random
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer


class Checkpoints:
    """The one checkpoint of a run, written now and then over the last.

    It holds the weights, the optimizer's state, all random states and the position in the run.

    Args:
        path: of the file.
        run_id: of the run.
        seconds: between two checkpoints; infinite for none.
        model: bare.
        optimizer: bare.
    """

    def __init__(
        self, path: Path, run_id: str, seconds: float, model: nn.Module, optimizer: Optimizer
    ) -> None:
        self._path, self._seconds = path, seconds
        # other versions may compute other bits: then the run begins again
        self._of = {"run_id": run_id, "torch": str(torch.__version__)}
        self._model, self._optimizer = model, optimizer
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time for the next one."""
        return math.isfinite(self._seconds) and time.monotonic() - self._last >= self._seconds

    def save(self, position: dict[str, Any]) -> None:
        """Write whole or not at all. A failure costs the checkpoint, not the run.

        Args:
            position: plain values from which the loop goes on.
        """
        beside = self._path.with_name(self._path.name + ".tmp")
        state = {
            "of": self._of,
            "position": position,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "random": _random_states(),
        }
        try:
            with beside.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, self._path)
        except (OSError, RuntimeError) as error:  # RuntimeError: torch's, on a full disk
            beside.unlink(missing_ok=True)
            warnings.warn(f"{self._path} cannot be written: {error}", stacklevel=2)
        self._last = time.monotonic()

    def restore(self) -> dict[str, Any] | None:
        """Take the checkpoint's state, if there is one of this run by this torch.

        Returns:
            Its position, or None: the run begins at its first step.
        """
        if not math.isfinite(self._seconds) or not self._path.exists():
            return None
        try:
            state = torch.load(self._path, map_location="cpu", weights_only=True)
            position = dict(state["position"]) if state["of"] == self._of else None
        except Exception:  # torch.load raises whatever a damaged file leads it to
            position = None
        if position is None:
            self._path.unlink()
            return None
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        _keep_dtypes(self._optimizer, state["optimizer"]["state"])
        _set_random_states(state["random"])
        return position


def _keep_dtypes(optimizer: Optimizer, saved: dict[int, dict[str, Any]]) -> None:
    """Undo torch's cast of state to its parameter's dtype, as of NAdam's float32 scalar."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for i, entries in saved.items():
        loaded = optimizer.state[parameters[i]]
        for key, value in entries.items():
            if isinstance(value, Tensor) and loaded[key].dtype != value.dtype:
                loaded[key] = value.to(loaded[key].device)


def _random_states() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, [int(key) for key in keys], *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_states(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])

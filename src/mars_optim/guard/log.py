"""One JSON line per event, and a word to Python's logging."""

from __future__ import annotations

import datetime
import json
import logging
import math
import warnings
from pathlib import Path
from typing import Any

import torch.distributed as dist

from ..files import check_appendable

logger = logging.getLogger("mars_optim.guard")
LOUD = ("warn", "rollback")


class EventLog:
    """Appends events to a file, on the first rank alone.

    Args:
        path: of the JSON Lines file; None for none.

    Raises:
        ValueError: if no such file can be written.
    """

    def __init__(self, path: str | Path | None) -> None:
        first = not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0
        self._path = Path(path) if path is not None and first else None
        self._speaks = first
        if self._path:
            check_appendable(self._path, "log")

    def write(self, event: str, step: int, **values: Any) -> None:
        """One event; numbers that JSON cannot say are written as text."""
        row = {"event": event, "step": step, **{k: _plain(v) for k, v in values.items()}}
        if self._path:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"time": now, **row}) + "\n")
            except OSError as error:  # costs the line, not the run
                warnings.warn(f"{self._path} cannot be written: {error}", stacklevel=3)
        if self._speaks:
            text = ", ".join(f"{k} {v}" for k, v in row.items() if k != "event")
            logger.log(logging.WARNING if event in LOUD else logging.INFO, "%s: %s", event, text)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value

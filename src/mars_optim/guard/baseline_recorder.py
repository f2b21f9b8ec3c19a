"""Writes down how AdamW runs, for the guard of the run that follows."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict

from torch.optim.optimizer import Optimizer

from .baseline import Baseline
from .readings import Readings, StepValues, Value


class BaselineRecorder:
    """Watches AdamW as :class:`Guard` will watch MARS.

    Args:
        optimizer: the AdamW in use.
        keep: last steps to remember (default: 1000).
        every: steps between readings of the device (default: 10).
        clip: of the MARS to come: whose share of tensors would have been clipped (default: 1.0).
    """

    def __init__(
        self, optimizer: Optimizer, *, keep: int = 1000, every: int = 10, clip: float = 1.0
    ) -> None:
        self._readings = Readings(optimizer, every, clip)
        self._rows: deque[StepValues] = deque(maxlen=keep)

    def watch(
        self,
        *,
        loss: Value,
        grad_norm: Value | None = None,
        step_seconds: float | None = None,
    ) -> None:
        """Take one step's values; arguments as in :meth:`Guard.watch`."""
        self._rows.extend(self._readings.add(loss, grad_norm, step_seconds) or ())
        self._readings.start_clock()

    def baseline(self) -> Baseline:
        """The history so far.

        Raises:
            ValueError: if fewer than 100 steps were watched, or a loss was not finite.
        """
        self._rows.extend(self._readings.read())
        return Baseline.from_rows(map(asdict, self._rows))

    def close(self) -> None:
        """Take the hook out of the optimizer."""
        self._readings.close()

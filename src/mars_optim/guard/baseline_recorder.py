"""Writes down how AdamW runs, for the guard of the run that follows."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict

from torch.optim.optimizer import Optimizer

from ..optim.tools.origin import unwrapped
from ..optim.values import check_number, whole
from .baseline import LEAST, Baseline
from .readings import Readings, StepValues, Value


class BaselineRecorder:
    """Watches AdamW as :class:`Guard` will watch MARS.

    Args:
        optimizer: the AdamW in use.
        keep: last steps to remember, 100 at the least (default: 1000).
        every: steps between readings of the device (default: 10).
        clip: of the MARS to come: whose share of tensors would have been clipped (default: 1.0);
            None to leave the share out.

    Raises:
        ValueError: for an argument out of range, or an optimizer without parameters.
    """

    def __init__(
        self, optimizer: Optimizer, *, keep: int = 1000, every: int = 10, clip: float | None = 1.0
    ) -> None:
        for name, value, least in (("keep", keep, LEAST), ("every", every, 1)):
            if whole(name, value) < least:
                raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
        if clip is not None:
            check_number("clip", clip, low=0.0, above=True)
        self._readings = Readings(unwrapped(optimizer), every, clip)
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

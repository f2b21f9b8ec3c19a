"""For any loop: what a MARS optimizer's steps show, to a file or to TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from ..files import check_appendable
from ..optim import MARS
from .telemetry_rows import to_row


class Scalars(Protocol):
    """The part of torch.utils.tensorboard's ``SummaryWriter`` that is used."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Write one number."""


class TelemetryLog:
    """Writes noise, signal, correction and clip of each group, every so many steps.

        log = TelemetryLog(optimizer, "noise.jsonl", every=50)
        ...  # the loop as it is: optimizer.step() does the rest
        log.remove()

    A line of the file is ``{"step": 50, "noise": {"signal/matrix": ..., ...}}``, a field and the
    kind of group; :class:`~mars_optim.optim.telemetry.GroupTelemetry` tells what the numbers are,
    and those that are not finite are left out. A ``SummaryWriter`` gets them as
    ``noise/signal/matrix``. Do not call ``optimizer.telemetry()`` beside it: each starts the
    other's means anew.

    Args:
        optimizer: a MARS; not what a host has wrapped around it.
        to: path of a file, to which lines are added and whose folder is made, or a
            ``SummaryWriter``.
        every: steps between writings, each of which waits for the device (default: 50).
        step: steps that the run has behind it (default: 0).
        write: whether this process writes; True on rank 0 only. All must have a log where
            parameters are sharded (default: True).

    Raises:
        TypeError: for an optimizer that is no MARS.
        ValueError: for ``every`` below 1, or a file that cannot be written.
    """

    def __init__(
        self,
        optimizer: MARS,
        to: str | Path | Scalars,
        *,
        every: int = 50,
        step: int = 0,
        write: bool = True,
    ) -> None:
        if not isinstance(optimizer, MARS):
            raise TypeError(
                f"TelemetryLog takes a MARS optimizer, not {type(optimizer).__name__}: if it "
                "wraps one, give the inner optimizer, such as optimizer.optimizer"
            )
        if type(every) is not int or every < 1:
            raise ValueError(f"every={every!r} must be a whole number of at least 1")
        if write and isinstance(to, str | Path):
            check_appendable(Path(to), "to")
        self.optimizer, self.to, self.every, self.steps = optimizer, to, every, step
        self.write = write
        if not optimizer.measures:
            optimizer.measure()
        self._hook = optimizer.register_step_post_hook(self._after)

    def remove(self) -> None:
        """Write no more. The optimizer goes on measuring, which costs little."""
        self._hook.remove()

    def _after(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self.steps += 1
        if self.steps % self.every:
            return
        noise = to_row([group.to_dict() for group in self.optimizer.telemetry()])
        if not self.write or not noise:
            return
        if isinstance(self.to, str | Path):
            with Path(self.to).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": self.steps, "noise": noise}) + "\n")
            return
        for key, value in noise.items():
            self.to.add_scalar(f"noise/{key}", value, self.steps)

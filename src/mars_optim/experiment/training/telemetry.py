"""Noise, signal and correction in a run's rows."""

from __future__ import annotations

import math
from typing import Any

from torch.optim.optimizer import Optimizer

from ...errors import UserError
from ...integrations.telemetry_rows import to_row
from ...optim import MARS
from .position import POSITION


def measure(optimizer: Optimizer, *, wanted: bool = True) -> None:
    """Begin to add up what :func:`noise_fields` tells, if it is wanted and the optimizer can.

    In every fourth step, which costs less than 2 % of the time of a small one.
    """
    if wanted and isinstance(optimizer, MARS):
        optimizer.measure(every=4)


def noise_fields(optimizer: Optimizer) -> dict[str, Any]:
    """``noise`` for a training row: means since the last row, for each group with a correction.

    Empty for another optimizer, before the first steps, and where no gradient is kept that this
    step's could be compared with, unless gamma has a schedule to be told of. Waits for the device;
    with sharded parameters every process must call it.
    """
    if not isinstance(optimizer, MARS) or not optimizer.measures:
        return {}
    groups = optimizer.param_groups
    known = [
        t
        for t in optimizer.telemetry()
        if math.isfinite(t.signal) or "gamma_now" in groups[t.group]
    ]
    return {"noise": to_row([t.to_dict() for t in known])} if known else {}


def memory_of(optimizer: Optimizer) -> dict[str, Any]:
    """``memory`` for a checkpoint: what an optimizer remembers beside its parameters' state."""
    return {"memory": optimizer.memory()} if isinstance(optimizer, MARS) else {}


def remember(optimizer: Optimizer, position: dict[str, Any]) -> None:
    """Take ``memory`` out of a checkpoint's position and go on from it.

    Raises:
        UserError: if it is damaged.
    """
    memory = position.pop("memory", None)
    if memory and isinstance(optimizer, MARS):
        try:
            optimizer.remember(memory)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"the checkpoint is damaged (memory in {POSITION}: {error}): delete the run's "
                "checkpoints to begin it again"
            ) from None

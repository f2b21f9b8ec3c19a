"""The step counter of a parameter: what other programs make of it, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..distributed.sharded import local
from ..values import number


def counter(step: Any, *, device: torch.device | None = None) -> Tensor:
    """``step`` as torch's AdamW keeps it: a float32 tensor of no dimension.

    Checkpoints of other programs hold numbers, and tools that cast a whole state leave bfloat16,
    which stands still at 256.

    Args:
        step: a number, of numpy too, or a tensor of one element.
        device: where to (default: None, a tensor stays where it is).

    Raises:
        ValueError: for what is no count of steps.
    """
    if isinstance(step, Tensor) and step.numel() == 1 and not step.is_complex():
        if step.dtype is torch.float32 and step.ndim == 0 and device in (None, step.device):
            return step
        own: Tensor = local(step).detach().reshape(())
        return own.to(device, torch.float32, copy=True)
    return torch.tensor(float(number("step", step)), dtype=torch.float32, device=device)


def check_counter(step: Any, name: str) -> None:
    """Raise ValueError unless ``step`` of the parameter called ``name`` can be a count of steps."""
    if isinstance(step, Tensor) and step.device.type != "cpu":
        return  # reading it would wait
    try:
        steps = number("step", step)
    except ValueError as error:
        raise ValueError(f"state of {name}: {error}") from None
    if not 0.0 <= steps < float("inf"):
        raise ValueError(
            f"state of {name}: step={steps!r} must be a finite number of at least 0: the "
            "checkpoint is damaged, or another program's"
        )

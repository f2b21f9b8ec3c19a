"""The learning rate over a run, as a pure function."""

from __future__ import annotations

import math
from typing import Literal


def lr_factor(
    step: int, steps: int, *, warmup: float, decay: Literal["linear", "cosine"] = "linear"
) -> float:
    """Share of the peak learning rate at ``step``: linear warm-up, then decay to zero.

    Args:
        step: from 0; the last step, ``steps - 1``, is the last one above zero.
        steps: of the whole run.
        warmup: share of the steps in warm-up.
        decay: shape after the warm-up.
    """
    warmup_steps = round(warmup * steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    if decay == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0 - progress

"""The learning rate over a run, as a pure function."""

from __future__ import annotations

import math
from typing import Literal

from ..records.training import TrainingPlan

Decay = Literal["linear", "cosine", "step", "wsd", "constant"]

STABLE = 0.8  # share of the run after which "wsd" decays
MILESTONES = (0.5, 0.75)  # shares of the run from which "step" has a tenth, then a hundredth


def lr_factor(
    step: int, steps: int, *, warmup: float, decay: Decay = "linear", floor: float = 0.0
) -> float:
    """Share of the peak learning rate at ``step``: linear warm-up, then decay.

    Args:
        step: from 0; the last step, ``steps - 1``, is the last one above ``floor``.
        steps: of the whole run.
        warmup: share of the steps in warm-up.
        decay: "linear" and "cosine" fall from the end of the warm-up on, "wsd" linearly in the last
            fifth of the run; "step" falls to a tenth at half of the run and to a hundredth at three
            quarters; "constant" does not fall.
        floor: share of the peak at which linear, cosine and wsd end.
    """
    warmup_steps = round(warmup * steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if decay == "constant":
        return 1.0
    if decay == "step":
        return 0.1 ** sum(step >= share * steps for share in MILESTONES)
    start = max(warmup_steps, round(STABLE * steps)) if decay == "wsd" else warmup_steps
    progress = max(0, step - start) / max(1, steps - start)
    left = 0.5 * (1.0 + math.cos(math.pi * progress)) if decay == "cosine" else 1.0 - progress
    return floor + (1.0 - floor) * left


def scheduled(training: TrainingPlan, step: int, steps: int, *, peak: float) -> float:
    """Share of the peak learning rate at ``step`` as a plan wants it, for all parameters.

    Args:
        training: whose warm-up, decay and ``min_lr`` hold.
        step: from 0.
        steps: of the whole run.
        peak: learning rate, of which ``min_lr`` becomes a share; one below it does not decay.
    """
    floor = min(1.0, training.min_lr / peak)
    return lr_factor(step, steps, warmup=training.warmup, decay=training.decay, floor=floor)

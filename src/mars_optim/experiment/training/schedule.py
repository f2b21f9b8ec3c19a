"""The learning rate over a run, and when it is evaluated, as pure functions."""

from __future__ import annotations

import math
from typing import Literal

from ..plan import RunSpec
from ..plan.training import DECAY_SHARE, TrainingPlan

Decay = Literal["linear", "cosine", "step", "wsd", "constant"]

MILESTONES = (0.5, 0.75)  # shares of the run from which "step" has a tenth, then a hundredth


CURVE_SHARE = 0.1  # of a run's work that evaluations before the last, for a curve, may add
FORWARD = 1 / 3  # work of evaluating a token, in units of training on it


def evaluation_steps(
    training: TrainingPlan, steps: int, step_tokens: int, *, sparing: bool
) -> tuple[int, ...]:
    """Steps after which a run is evaluated, evenly spread; the last is at its end.

    Args:
        training: says how many evaluations there are, and of how many tokens.
        steps: of the run.
        step_tokens: of one step.
        sparing: leave out those before the last that would take too much of a short run.
    """
    before_the_last = training.evaluations - 1
    if sparing:
        room = CURVE_SHARE * steps * step_tokens / (FORWARD * training.eval_tokens)
        before_the_last = min(before_the_last, int(room))
    count = before_the_last + 1
    return tuple(sorted({round(steps * (i + 1) / count) for i in range(count)}))


def lr_factor(
    step: int,
    steps: int,
    *,
    warmup: float,
    decay: Decay = "linear",
    floor: float = 0.0,
    decay_share: float = DECAY_SHARE,
) -> float:
    """Share of the peak learning rate at ``step``: linear warm-up, then decay.

    Args:
        step: from 0; the last step, ``steps - 1``, is the last one above ``floor``.
        steps: of the whole run.
        warmup: share of the steps in warm-up.
        decay: "linear" and "cosine" fall from the end of the warm-up on, "wsd" linearly at the end
            of the run; "step" falls to a tenth at half of the run and to a hundredth at three
            quarters; "constant" does not fall.
        floor: share of the peak at which linear, cosine and wsd end.
        decay_share: of the steps, in which wsd falls.
    """
    warmup_steps = round(warmup * steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if decay == "constant":
        return 1.0
    if decay == "step":
        return 0.1 ** sum(step >= share * steps for share in MILESTONES)
    start = warmup_steps
    if decay == "wsd":
        start = max(start, round((1.0 - decay_share) * steps))
    progress = max(0, step - start) / max(1, steps - start)
    left = 0.5 * (1.0 + math.cos(math.pi * progress)) if decay == "cosine" else 1.0 - progress
    return floor + (1.0 - floor) * left


def scheduled(
    training: TrainingPlan, step: int, steps: int, *, peak: float, decay: Decay | None = None
) -> float:
    """Share of the peak learning rate at ``step`` as a plan wants it, for all parameters.

    Args:
        training: whose warm-up, decay and ``min_lr`` hold.
        step: from 0.
        steps: of the whole run.
        peak: learning rate, of which ``min_lr`` becomes a share; one below it does not decay.
        decay: in place of the plan's.
    """
    return lr_factor(
        step,
        steps,
        warmup=training.warmup_steps(steps) / steps,
        decay=decay or training.decay,
        floor=min(1.0, training.min_lr / peak),
        decay_share=training.decay_share,
    )


def rate_share(spec: RunSpec, step: int) -> float:
    """Share of a run's peak learning rate at ``step``; a trunk's does not decay."""
    if spec.arm.own_schedule:
        return 1.0
    decay: Decay | None = "constant" if spec.branches else None
    return scheduled(spec.training, step, spec.steps, peak=spec.lr, decay=decay)

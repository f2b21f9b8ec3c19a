"""How a run is trained: schedule, accumulation, clip, evaluations."""

from __future__ import annotations

from typing import Literal

from .table import Flag, Number, Whole, option, table

LEAST_STEPS = 10
"""Steps of one budget unit, at least."""
DECAY_SHARE = 0.2


@table
class TrainingPlan:
    """How every run is trained."""

    steps: Whole = option(1200, "optimizer steps of one budget unit", ge=LEAST_STEPS, le=10**12)
    warmup: Number = option(0.1, "share of the steps in linear warm-up", ge=0.0, le=0.9)
    decay: Literal["linear", "cosine", "step", "wsd", "constant"] = option(
        "linear",
        'to zero: "linear", "cosine" or "wsd" (the last fifth, linearly); or "step" (a tenth from '
        'half-way on, a hundredth from three quarters on) or "constant"',
    )
    decay_share: Number = option(
        DECAY_SHARE,
        'share of the steps in the decay of "wsd"',
        gt=0.0,
        le=0.9,
        of=("decay", ("wsd",)),
        sparse=True,
    )
    trunk: Flag = option(
        False,
        "baseline and candidate are trained once a seed, at constant rate, and each of their "
        "budgets is a decay that branches off this run; both have a ladder",
        of=("decay", ("wsd",)),
        sparse=True,
    )
    min_lr: Number = option(
        0.0,
        "where the decay ends instead of at zero; all parameters' rates fall by the same factor",
        ge=0.0,
        of=("decay", ("linear", "cosine", "wsd")),
    )
    accumulation: Whole = option(1, "batches per optimizer step", ge=1)
    grad_clip: Number = option(1.0, "largest norm of the whole gradient; 0 for no clip", ge=0.0)
    eval_tokens: Whole = option(65536, "validation tokens per evaluation", ge=1)
    evaluations: Whole = option(
        3,
        "evaluations per run, the last at the end; a pilot leaves out those before it that would "
        "take more than a tenth of a short run",
        ge=1,
    )
    precision: Literal["no", "bf16"] = option("no", 'mixed precision: "no" or "bf16"')
    convention: Literal["paper", "reference_code"] = option(
        "paper",
        'where the two differ: the "paper", or the authors\' "reference_code", which adds up the '
        "losses of an accumulation, corrects two-dimensional tensors only and decays vectors",
    )
    reference_accumulation: Whole = option(
        0,
        'losses that the authors\' "reference_code" adds up on one GPU; 0 for accumulation',
        ge=0,
    )

    def warmup_steps(self, steps: int) -> int:
        """Warm-up steps of a run of so many steps; with trunks, those of one budget unit."""
        return round(self.warmup * (self.steps if self.trunk else steps))

    def decay_start(self, steps: int) -> int:
        """Steps before the decay of "wsd", in a run of so many steps."""
        return max(self.warmup_steps(steps), round((1.0 - self.decay_share) * steps))

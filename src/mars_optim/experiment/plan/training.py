"""How a run is trained: schedule, accumulation, clip, evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...options import option


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """How every run is trained."""

    steps: int = option(1200, "optimizer steps of one budget unit", low=10, high=10**12)
    warmup: float = option(0.1, "share of the steps in linear warm-up", low=0.0, high=0.9)
    decay: Literal["linear", "cosine", "step", "wsd", "constant"] = option(
        "linear",
        'to zero: "linear", "cosine" or "wsd" (the last fifth, linearly); or "step" (a tenth from '
        'half-way on, a hundredth from three quarters on) or "constant"',
    )
    min_lr: float = option(
        0.0,
        "where the decay ends instead of at zero; all parameters' rates fall by the same factor",
        low=0.0,
        of=("decay", ("linear", "cosine", "wsd")),
    )
    accumulation: int = option(1, "batches per optimizer step", low=1)
    grad_clip: float = option(1.0, "largest norm of the whole gradient; 0 for no clip", low=0.0)
    eval_tokens: int = option(65536, "validation tokens per evaluation", low=1)
    evaluations: int = option(
        3,
        "evaluations per run, the last at the end; a pilot leaves out those before it that would "
        "take more than a tenth of a short run",
        low=1,
    )
    precision: Literal["no", "bf16"] = option("no", 'mixed precision: "no" or "bf16"')
    convention: Literal["paper", "reference_code"] = option(
        "paper",
        'where the two differ: the "paper", or the authors\' "reference_code", which adds up the '
        "losses of an accumulation, corrects two-dimensional tensors only and decays vectors",
    )
    reference_accumulation: int = option(
        0,
        'losses that the authors\' "reference_code" adds up on one GPU; 0 for accumulation',
        low=0,
    )

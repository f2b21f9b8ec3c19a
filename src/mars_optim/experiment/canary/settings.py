"""Settings of a canary, fixed before its first step."""

from __future__ import annotations

from typing import Any

from ...errors import UserError
from ...guard.settings import GuardSettings
from ...optimizer_options import ClipOver, Correction, GammaSchedule
from ..plan.table import Count, Flag, Number, NumberOrNone, Positive, Whole, option, part, table

OF_MARS = ("gamma", "clip", "correction", "gamma_schedule", "clip_over", "cautious")
"""Settings of an arm that ``migrate`` takes, and a canary with it."""


@table
class CanarySettings:
    """A canary: from one AdamW checkpoint, AdamW continued against MARS continued.

    Args:
        steps: of each continuation (default: 400).
        history: steps of AdamW from the checkpoint to the switch, by which the guard's limits are
            known; at least 100 (default: 200).
        decay: share of ``steps``, at the end, in which the learning rate falls to zero, so that
            what is compared is decayed (default: 0.25).
        seeds: data orders, the same for both arms (default: 1 to 5).
        lr_scales: of the checkpoint's learning rate, tried for both arms alike on the data order
            ``tuning_seed``, where there is more than one: one, or three or more different ones,
            since the best of two lies at an edge; the weight decay is divided by it, so that
            weights decay as before (default: 1.0 alone).
        tuning_seed: not used again (default: 0).
        gamma: of MARS (default: 0.025).
        clip: of MARS, 0 for none (default: 1.0).
        correction: of MARS (default: "approx").
        gamma_schedule: of MARS (default: "constant").
        clip_over: of MARS (default: "tensor").
        cautious: of MARS (default: False).
        accumulation: batches per step (default: 1).
        grad_clip: largest norm of the whole gradient, 0 for no clip (default: 1.0).
        eval_tokens: validation tokens at the end (default: 65536).
        margin: to go on, the whole interval of the loss difference must lie below it, in nats
            (default: 0.0).
        confidence: of the interval (default: 0.95).
        guard: the limits that say what a spike is (default: the guard's own).

    Raises:
        UserError: naming the setting, its value and what is allowed.
    """

    steps: Whole = option(400, "of each continuation", ge=20, le=10**9)
    history: Whole = option(200, "steps of AdamW before the switch", ge=100, le=10**6)
    decay: Number = option(0.25, "share of the steps in decay to zero", ge=0.0, le=1.0)
    seeds: tuple[Count, ...] = option((1, 2, 3, 4, 5), "data orders")
    lr_scales: tuple[Positive, ...] = option((1.0,), "of the checkpoint's lr")
    tuning_seed: Whole = option(0, "not used again", ge=0)
    gamma: Number = option(0.025, "of MARS", ge=0.0)
    clip: NumberOrNone = option(1.0, "of MARS, 0 for none", none=0.0, ge=0.0)
    correction: Correction = option("approx", "of MARS", sparse=True)
    gamma_schedule: GammaSchedule = option("constant", "of MARS", sparse=True)
    clip_over: ClipOver = option("tensor", "of MARS", sparse=True)
    cautious: Flag = option(False, "of MARS", sparse=True)
    accumulation: Whole = option(1, "batches per step", ge=1)
    grad_clip: Number = option(1.0, "of the whole gradient, 0 for none", ge=0.0)
    eval_tokens: Whole = option(65536, "validation tokens", ge=1)
    margin: Number = option(0.0, "of the loss difference, nats")
    confidence: Number = option(0.95, "of the interval", gt=0.5, le=0.999)
    guard: GuardSettings = part(GuardSettings, "what a spike is")

    @property
    def of_mars(self) -> dict[str, Any]:
        """The settings of the MARS, as arms and ``migrate`` take them."""
        return {name: getattr(self, name) for name in OF_MARS}

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < max(2, len(self.seeds)):
            raise UserError(f"seeds = {list(self.seeds)} must be two or more different data orders")
        if not self.lr_scales:
            raise UserError(
                "lr_scales is empty: give at least 1.0, the checkpoint's own learning rate"
            )
        if len(self.lr_scales) > 1 and self.tuning_seed in self.seeds:
            raise UserError(
                f"tuning_seed = {self.tuning_seed} is among seeds: the data order that "
                "chooses the learning rate must not judge it; take another"
            )
        if len(self.lr_scales) == 2 or len(set(self.lr_scales)) < len(self.lr_scales):
            raise UserError(
                f"lr_scales = {list(self.lr_scales)} must be one value, or three or more different "
                "ones: the best of two lies at the edge of those tried, which decides nothing; "
                "try 1, 2 and 4"
            )

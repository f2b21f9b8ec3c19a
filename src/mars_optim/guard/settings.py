"""What is agreed with the guard before the switch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from ..errors import UserError
from ..options import check, option

Signal = Literal["nonfinite", "loss", "drift", "grad_norm", "clip_share", "step_seconds"]
SIGNALS: tuple[str, ...] = get_args(Signal)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """Limits against the AdamW history, and what follows when they are passed.

    A signal is on while more than half of its last ``patience`` values lie beyond its limit. All
    deviations are robust ones (1.4826 times the median absolute deviation).

    Args:
        every: steps between readings; values that are tensors are read from the device, and ranks
            agree on them, once a reading (default: 10).
        window: steps in the running median that the loss is compared with (default: 50).
        patience: values of which more than half must be beyond the limit (default: 12).
        settle: steps after the switch in which alarms warn only, but for a loss that is not finite;
            at most half the window (default: 20).
        loss_sigmas: "loss" is on beyond this many deviations above the running median, those of a
            median of ``patience`` losses in the history, and beyond all but 3 % of the history's
            losses (default: 8.0).
        loss_rise: and beyond this share of the running median (default: 0.05).
        drift_rise: "drift" is on where the running median itself is this share, and
            ``loss_sigmas`` deviations, above its lowest so far (default: 0.2).
        grad_norm_factor: "grad_norm" is on beyond this many times the 99 % quantile of AdamW's
            (default: 3.0).
        clip_share_rise: "clip_share" is on where the share of tensors that MARS clips is this much
            above the highest that AdamW's gradients would have had (default: 0.25).
        step_time_factor: "step_seconds" is on beyond this many times AdamW's median
            (default: 1.5).
        rollback_on: signals that go back to AdamW; the others warn (default: "nonfinite", "loss",
            "drift").
        checkpoint_every: steps between snapshots (default: 200).
        keep: snapshots kept (default: 3).

    Raises:
        ValueError: naming the setting, its value and what is allowed.
    """

    every: int = option(10, "steps between readings", low=1, high=10_000)
    window: int = option(50, "steps in the running median", low=10, high=10_000)
    patience: int = option(12, "values of which more than half count", low=1, high=1_000)
    settle: int = option(20, "steps after the switch that warn only", low=0)
    loss_sigmas: float = option(8.0, "deviations above the running median", above=0.0)
    loss_rise: float = option(0.05, "share of the running median", low=0.0)
    drift_rise: float = option(0.2, "share of the lowest running median", low=0.0)
    grad_norm_factor: float = option(3.0, "times AdamW's 99 % quantile", above=0.0)
    clip_share_rise: float = option(0.25, "above AdamW's highest share", low=0.0, high=1.0)
    step_time_factor: float = option(1.5, "times AdamW's median", above=0.0)
    rollback_on: tuple[Signal, ...] = option(
        ("nonfinite", "loss", "drift"), "signals that go back", choices=SIGNALS
    )
    checkpoint_every: int = option(200, "steps between snapshots", low=1)
    keep: int = option(3, "snapshots kept", low=1, high=1_000)

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            number = isinstance(value, int if f.type == "int" else int | float)
            if f.name != "rollback_on" and (isinstance(value, bool) or not number):
                noun = "a whole number" if f.type == "int" else "a number"
                raise ValueError(f"{f.name} = {value!r} must be {noun}")
        if isinstance(self.rollback_on, str):
            raise ValueError(f"rollback_on = {self.rollback_on!r} must be a tuple of signals")
        object.__setattr__(self, "rollback_on", tuple(self.rollback_on))
        try:
            check(self)
        except UserError as error:
            raise ValueError(str(error)) from None
        for name in ("settle", "patience"):
            if getattr(self, name) > self.window // 2:
                raise ValueError(
                    f"{name} = {getattr(self, name)} must be at most half of window = "
                    f"{self.window}: the running median would have moved by then"
                )

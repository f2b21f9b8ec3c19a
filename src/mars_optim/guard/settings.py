"""Settings of the guard, agreed before the switch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from ..errors import did_you_mean

Signal = Literal["nonfinite", "loss", "drift", "grad_norm", "clip_share", "step_seconds"]
SIGNALS: tuple[str, ...] = get_args(Signal)

AT_LEAST = dict(every=1, window=10, patience=1, checkpoint_every=1, keep=1)  # 0 for the others
ABOVE_0 = ("loss_sigmas", "grad_norm_factor", "step_time_factor")
AT_MOST = dict(every=10_000, window=10_000, patience=1_000, clip_share_rise=1, keep=1_000)
LARGEST = 1e22  # of the others


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

    every: int = 10
    window: int = 50
    patience: int = 12
    settle: int = 20
    loss_sigmas: float = 8.0
    loss_rise: float = 0.05
    drift_rise: float = 0.2
    grad_norm_factor: float = 3.0
    clip_share_rise: float = 0.25
    step_time_factor: float = 1.5
    rollback_on: tuple[Signal, ...] = ("nonfinite", "loss", "drift")
    checkpoint_every: int = 200
    keep: int = 3

    def __post_init__(self) -> None:
        for f in fields(self):
            if f.name != "rollback_on":
                _check_number(f.name, getattr(self, f.name), whole=f.type == "int")
        if isinstance(self.rollback_on, str):
            raise ValueError(f"rollback_on = {self.rollback_on!r} must be a tuple of signals")
        object.__setattr__(self, "rollback_on", tuple(self.rollback_on))
        for signal in self.rollback_on:
            if signal not in SIGNALS:
                allowed, hint = ", ".join(map(repr, SIGNALS)), did_you_mean(signal, SIGNALS)
                raise ValueError(f"rollback_on = {signal!r} must be one of {allowed}{hint}")
        for name in ("settle", "patience"):
            if getattr(self, name) > self.window // 2:
                raise ValueError(
                    f"{name} = {getattr(self, name)} must be at most half of window = "
                    f"{self.window}, since the running median moves within that time"
                )


def _check_number(name: str, value: object, *, whole: bool) -> None:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise ValueError(f"{name} = {value!r} must be {'a whole number' if whole else 'a number'}")
    least, most = AT_LEAST.get(name, 0), AT_MOST.get(name, LARGEST)
    if name in ABOVE_0 and not value > 0:
        raise ValueError(f"{name} = {value!r} must be above 0")
    if not value >= least:
        raise ValueError(f"{name} = {value!r} must be at least {least}")
    if value > most:
        raise ValueError(f"{name} = {value!r} must be at most {most:g}")

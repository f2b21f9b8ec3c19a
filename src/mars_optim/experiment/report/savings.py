"""Tokens saved, as text."""

from __future__ import annotations

import math

from ..analysis import ArmResult, Interval
from ..analysis.stats import saved
from .messages import Messages

BOUNDS = {"": "", "at least": "\u2265 ", "at most": "\u2264 "}


def bounded(bounds: set[str]) -> str:
    """The sign before a mean that is only a bound."""
    return BOUNDS.get("/".join(bounds), "")


def ends(value: Interval | None, say: Messages) -> str:
    """Ends of an interval of shares, as far as it is known."""
    if value is None:
        return say("tile.not-known")
    if not math.isfinite(value.low):
        return say("one-pair")
    return say.between(value, say.percent)


def saving(arm: ArmResult, say: Messages) -> str:
    """Tokens saved, or the bound that is known of it."""
    if arm.log_ratio is None:
        return say("none")
    return bounded(arm.bounds) + say.percent(saved(arm.log_ratio.mean))


def saving_interval(arm: ArmResult, say: Messages) -> str:
    """Tokens saved with the interval, as far as it is known."""
    if arm.log_ratio is None or not math.isfinite(arm.log_ratio.low) or arm.all_bounds:
        return saving(arm, say)
    ends = say.between(arm.log_ratio.map(saved), say.percent)
    return say("with-interval", value=saving(arm, say), ends=ends)

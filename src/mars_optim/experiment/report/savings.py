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


def ends(value: Interval | None, words: Messages) -> str:
    """Of an interval of shares, as far as it is known."""
    if value is None:
        return words("tile.not-known")
    if not math.isfinite(value.low):
        return words("one-pair")
    return words.between(value, words.percent)


def saving(arm: ArmResult, words: Messages) -> str:
    """Tokens saved, or the bound that is known of it."""
    if arm.log_ratio is None:
        return words("none")
    return bounded(arm.bounds) + words.percent(saved(arm.log_ratio.mean))


def saving_interval(arm: ArmResult, words: Messages) -> str:
    """Tokens saved with the interval, as far as it is known."""
    if arm.log_ratio is None or not math.isfinite(arm.log_ratio.low) or arm.all_bounds:
        return saving(arm, words)
    ends = words.between(arm.log_ratio.map(saved), words.percent)
    return words("with-interval", value=saving(arm, words), ends=ends)

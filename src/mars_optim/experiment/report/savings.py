"""Tokens saved, as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from ..analysis import ArmResult, Interval
from ..analysis.arm_model import side
from ..analysis.stats import saved
from .messages import Messages

BOUNDS = {"": "", "at least": "\u2265 ", "at most": "\u2264 "}


def bounded(bounds: set[str]) -> str:
    """The sign before a mean that is only a bound."""
    return BOUNDS.get("/".join(bounds), "")


def ends(
    value: Interval | None,
    say: Messages,
    bounds: Collection[str] = (),
    show: Callable[[float], str] | None = None,
) -> str:
    """Ends of an interval, as far as it is known.

    Args:
        value: None where not even a mean is known.
        say: texts of the language.
        bounds: of the mean: the side that they leave open has no end.
        show: of a number (default: None, a share).
    """
    show = show or say.percent
    if value is None:
        return say("tile.not-known")
    if not math.isfinite(value.low):
        return say("one-pair")
    open_side = side(bounds)
    if not open_side:
        return say.between(value, show)
    return say(f"ends.{open_side}", low=show(value.low), high=show(value.high))


def closed_part(share: Interval, bounds: Collection[str]) -> list[float]:
    """Ends of what a picture draws, in percent: a side that bounds leave open ends at the mean."""
    low = share.mean if "at most" in bounds else share.low
    high = share.mean if "at least" in bounds else share.high
    return [100 * low, 100 * high]


def saving(arm: ArmResult, say: Messages) -> str:
    """Tokens saved, or the bound that is known of it."""
    if arm.log_ratio is None:
        return say("none")
    return bounded(arm.bounds) + say.percent(saved(arm.log_ratio.mean))


def saving_interval(arm: ArmResult, say: Messages) -> str:
    """Tokens saved with the interval, as far as it is known."""
    if arm.log_ratio is None or not math.isfinite(arm.log_ratio.low) or arm.all_bounds:
        return saving(arm, say)
    known = ends(arm.log_ratio.map(saved), say, arm.bounds)
    return say("with-interval", value=saving(arm, say), ends=known)

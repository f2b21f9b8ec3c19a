"""Whether a switch that saves tokens surely costs hours, because its steps take longer."""

from __future__ import annotations

import math

from .happened import canary_step_time
from .model import Analysis, Finding
from .stats import Interval, saved

LOST = "reason.hours-lost"


def hours_lost(analysis: Analysis) -> Finding | None:
    """That the whole interval of the hours saved lies below zero; so does that of the money.

    share = 1 - step time ratio / token ratio

    Args:
        analysis: of a pilot. A step time from its canary goes before the pilot's own.

    Returns:
        None where hours may be saved, or nobody can tell. ``place`` of the finding is "canary"
        or "pilot": where the step time is from.
    """
    there, measured = canary_step_time(analysis.aftermath), analysis.candidate.step_time
    share = _share_at(analysis.real_log_ratio, there) if there else None
    place, ratio = "canary", there
    if share is None and analysis.money and measured:
        place, ratio, share = "pilot", measured[0], analysis.money.share
    if share is None or ratio is None or not share.high < 0 or "at least" in analysis.real_bounds:
        return None
    names = dict(baseline=analysis.baseline.name, candidate=analysis.candidate.name, place=place)
    numbers = dict(ratio=ratio, low=share.low, high=share.high)
    return Finding(f"{LOST}.{place}", {**names, **numbers})


def _share_at(log_ratio: Interval | None, step_time: float) -> Interval | None:
    return log_ratio and log_ratio.map(lambda value: saved(value - math.log(step_time)))

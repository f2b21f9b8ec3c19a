"""Stages 2 and 3 as they went: what ticks a condition, where a stage stands, what is told of it."""

from __future__ import annotations

from statistics import median
from typing import Literal

from ..records.production import Reading
from .aftermath import Aftermath
from .conditions import Condition, Status


def canary_status(found: Aftermath, planned: Status) -> Status:
    """Where stage 2 stands.

    Args:
        found: what happened.
        planned: as the pilot's verdict leaves the stage; kept where nothing happened. A canary
            without a decision is "next": it goes on with more data orders.
    """
    if found.canary is None:
        return planned
    ends: dict[str, Status] = {"production": "done", "back": "failed", "not-enough-runs": "next"}
    return ends[found.canary.recommendation]


def guard_status(found: Aftermath, planned: Status) -> Status:
    """Where stage 3 stands, as the guard's log tells."""
    if found.guard is None:
        return planned
    if found.guard.rollbacks:
        return "failed"
    return "done" if found.guard.ended else "under-way"


def spike_free(found: Aftermath) -> bool | None:
    """Whether no data order has a spike of the candidate alone; None without a canary."""
    return None if found.canary is None else found.canary.spiked == 0


def surely_better(found: Aftermath) -> bool | None:
    """Whether the interval of the loss difference lies below the margin; None without a canary."""
    if found.canary is None:
        return None
    high = found.canary.high
    return high is not None and high < found.canary.settings["margin"]


def canary_says_go(found: Aftermath) -> bool | None:
    """Whether the canary recommends production; None without a canary."""
    return None if found.canary is None else found.canary.recommendation == "production"


def canary_step_time(found: Aftermath) -> float | None:
    """Median over the data orders of the candidate's step time, AdamW's as 1; None if not known."""
    orders = found.canary.orders if found.canary else ()
    times = [order.step_time for order in orders if order.step_time is not None]
    times = [time for time in times if time == time]  # not nan
    return median(times) if times else None


def went_back(found: Aftermath) -> Literal["", "canary", "production"]:
    """The last stage that ended in AdamW; empty where none did."""
    if found.guard is not None:
        return "production" if found.guard.rollbacks else ""
    back = found.canary is not None and found.canary.recommendation == "back"
    return "canary" if back else ""


def canary_events(found: Aftermath, baseline: str, candidate: str) -> tuple[Condition, ...]:
    """Events of the canary's file, one line each; empty without a canary."""
    canary = found.canary
    if canary is None:
        return ()
    names = dict(baseline=baseline, candidate=candidate)
    lines = [
        _told(
            f"canary-{canary.recommendation}",
            date=canary.date or None,
            orders=len(canary.orders),
            steps=int(canary.settings["steps"]),
        )
    ]
    if canary.mean is not None and canary.low is not None:
        about = dict(mean=canary.mean, low=canary.low, high=canary.high)
        level = canary.settings["confidence"]
        lines.append(_told("canary-difference", **about, level=level, **names))
    spikes = dict(mars=canary.spiked, both=sum(o.adamw_spike for o in canary.orders))
    lines.append(_told("canary-spikes", **spikes, orders=len(canary.orders), **names))
    scales = canary.scales
    if {"adamw", "mars"} <= scales.keys():
        lines.append(_told("canary-rates", adamw=scales["adamw"], mars=scales["mars"], **names))
    if found.canary_size:
        lines.append(_told("canary-size", changes=", ".join(found.canary_size)))
    return tuple(lines)


def guard_events(found: Aftermath, baseline: str) -> tuple[Condition, ...]:
    """Events of the guard's log, one line each; empty without a log."""
    guard = found.guard
    if guard is None:
        return ()
    start = dict(step=guard.start.step, date=_day(guard.start))
    lines = [_told("guard-start", **start, switches=guard.switches)]
    signals = ", ".join(dict.fromkeys(row.signal for row in guard.trips)) or None
    trips = dict(trips=len(guard.trips), rollbacks=len(guard.rollbacks))
    lines.append(_told("guard-trips" if signals else "guard-quiet", **trips, signals=signals))
    for row in guard.rollbacks:
        about = dict(signal=row.signal, value=row.value, limit=row.limit, baseline=baseline)
        lines.append(
            _told("guard-rollback", step=row.step, to_step=row.to_step, date=_day(row), **about)
        )
    last = guard.last
    key, event = ("guard-end", None) if guard.ended else ("guard-last", last.event)
    lines.append(_told(key, event=event, step=last.step, date=_day(last)))
    return tuple(lines)


def _day(row: Reading) -> str | None:
    """To the minute, in UTC as the guard writes it; None where it is not recorded."""
    return row.time[:16].replace("T", " ") or None


def _told(key: str, **numbers: str | float | None) -> Condition:
    return Condition(key=f"told.{key}", numbers=numbers)

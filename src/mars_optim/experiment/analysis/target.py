"""When each run reaches the target, and what the arms' times tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..records import Run
from .arm_model import Reach, TargetResult
from .ladder import LadderReading
from .survival import Times, median_time, not_yet

Floats = NDArray[np.float64]


def first_reached(
    at: ArrayLike, costs: ArrayLike, goal: float
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int_]]:
    """Where curves first come down to a goal, on a straight line between two evaluations.

    Args:
        at: where the evaluations are, rising, (evaluations,).
        costs: the less the better, (..., evaluations).
        goal: to be reached.

    Returns:
        The places (...), whether it was reached at all (...), and the evaluation that was the first
        to have it (...): 0 if there is none before it to draw a line from.
    """
    x, y = np.asarray(at, float), np.asarray(costs, float)
    there = np.asarray(y <= goal)
    first = there.argmax(axis=-1)
    before = np.maximum(first - 1, 0)
    y1, y0 = (np.take_along_axis(y, i[..., None], -1)[..., 0] for i in (first, before))
    share = np.where(first > 0, (y0 - goal) / np.where(y0 > y1, y0 - y1, 1.0), 1.0)
    return x[before] + share * (x[first] - x[before]), np.asarray(there.any(axis=-1)), first


def reach(run: Run, goal: float) -> Reach:
    """When a run reaches the target, as its evaluations tell.

    Args:
        run: whose ``valid_loss`` are costs (:func:`mars_optim.experiment.records.metric.judged`).
        goal: the target, as a cost.
    """
    assert run.outcome is not None
    rows = [row for row in run.rows if row.get("valid_loss") is not None]
    rows = sorted({row["step"]: row for row in rows}.values(), key=lambda row: row["step"])
    length = run.outcome.tokens / run.outcome.steps * run.spec.steps  # of a run cut short, too
    whole = Reach(tokens=length, steps=run.spec.steps, seconds=None, reached=False)
    if not rows:
        return whole
    steps = [row["step"] for row in rows]
    step, there, first = first_reached(steps, [row["valid_loss"] for row in rows], goal)
    if not there:
        return replace(whole, seconds=run.outcome.seconds)
    place, last = float(step), steps[max(0, int(first) - 1)]

    def at(key: str) -> float | None:
        known = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
        if not known:
            return None
        x, y = zip(*known, strict=True)
        return float(np.interp(place, x, y))

    return Reach(
        tokens=at("tokens") or place * length / run.spec.steps,
        steps=place,
        seconds=at("seconds"),
        reached=True,
        at_first=int(first) == 0,
        gap=(steps[int(first)] - last) / max(place, 1e-9),
    )


def target_result(reaches: Sequence[Reach], kind: str) -> TargetResult:
    """Times to the target of one arm's runs, as one result."""
    missed = np.array([not r.reached for r in reaches])
    curve = not_yet(np.array([r.tokens for r in reaches]), missed)
    seconds = [r.seconds for r in reaches]
    known = [value for value in seconds if value is not None]
    hours = None
    if len(known) == len(seconds):
        hours = median_time(not_yet(np.array(known), missed))
    return TargetResult(
        runs=len(reaches),
        reached=int((~missed).sum()),
        kind=kind,
        tokens=median_time(curve),
        steps=median_time(not_yet(np.array([float(r.steps) for r in reaches]), missed)),
        seconds=hours,
        curve=curve,
        missed=tuple(sorted(r.tokens for r in reaches if not r.reached)),
    )


def times_of(pairs: Sequence[tuple[Reach, Reach]]) -> Times:
    """The log tokens of (baseline, candidate) pairs."""
    logs = np.log([[base.tokens, cand.tokens] for base, cand in pairs]).reshape(-1, 2)
    missed = np.array([[not base.reached, not cand.reached] for base, cand in pairs], bool)
    missed = missed.reshape(-1, 2)
    return Times(logs[:, 0], logs[:, 1], missed[:, 0], missed[:, 1])


def reading(base: Reach, mine: Reach) -> LadderReading | None:
    """The baseline's tokens to the target against another run's: a bound if one of them missed.

    None if both did.
    """
    if not (base.reached or mine.reached):
        return None
    if base.reached and mine.reached:
        return LadderReading(base.tokens, "")
    return LadderReading(base.tokens, "at most" if base.reached else "at least")


def slope_at(curves: Sequence[Run], goal: float) -> float | None:
    """Fall of the cost per unit of log tokens where runs reach the target; > 0, or None.

    By chords from two thirds of the way to one and a half times it.
    """
    slopes = []
    for run in curves:
        rows = [r for r in run.rows if r.get("valid_loss") is not None and r["tokens"] > 0]
        when = reach(run, goal)
        if not when.reached or when.at_first or len(rows) < 2:
            continue
        x, y = np.log([r["tokens"] for r in rows]), [r["valid_loss"] for r in rows]
        middle = np.log(when.tokens)
        ends = np.clip((middle - np.log(1.5), middle + np.log(1.5)), x[0], x[-1])
        above, below = np.interp(ends, x, y)
        if ends[1] > ends[0]:
            slopes.append((above - below) / (ends[1] - ends[0]))
    mean = float(np.mean(slopes)) if slopes else 0.0
    return mean if mean > 0 else None

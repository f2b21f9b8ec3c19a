"""The runs that a study of lengths needs next: for each arm's best rate, and at equal rates."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

from mars_optim.experiment.plan import Plan

from . import rate_search
from .rate_search import BEYOND, octave_of


class Trial(NamedTuple):
    """One run of the study: rate UNIT 2^octave, length times the plan's steps."""

    length: int
    arm: str
    octave: int
    seed: int


Losses = dict[Trial, float]


class Settings(NamedTuple):
    """Settings of the study."""

    lengths: tuple[int, ...]
    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    octaves: tuple[int, ...] = (0,)
    """Powers of two from the baseline's best rate, which all arms have."""


def wanted(plan: Plan, settings: Settings, losses: Losses) -> list[Trial]:
    """The runs that are due, given the losses so far: of the shortest lengths first."""
    for length in settings.lengths:
        due = [t for arm in settings.arms for t in _of_arm(plan, settings, losses, length, arm)]
        missing = [t for t in dict.fromkeys(due) if t not in losses]
        if missing:
            return missing
    return []


def _of_arm(
    plan: Plan, settings: Settings, losses: Losses, length: int, arm: str
) -> Iterable[Trial]:
    """The search of one arm at one length, and then its other seeds."""
    first = functools.partial(Trial, length, arm, seed=settings.seeds[0])
    start = _start(plan, settings, losses, length, arm)
    tried = {t.octave for t in losses if t[:2] == (length, arm)}
    known = {o: losses[first(o)] for o in tried if first(o) in losses}
    searched = rate_search.missing(known, start)
    if searched:
        return [first(o) for o in searched]
    best = min(known, key=known.__getitem__)
    octaves = {best - 1, best, best + 1}
    at_best = [Trial(length, arm, best, s) for s in settings.seeds]
    if any(t not in losses for t in at_best):  # of a study that is broken off, these tell most
        return at_best
    baseline = best_octave(losses, settings, length, plan.comparison.baseline)
    if baseline is None:
        return []
    octaves |= {baseline + o for o in settings.octaves if abs(baseline + o) <= BEYOND}
    return [Trial(length, arm, o, s) for o in octaves for s in settings.seeds]


def _start(plan: Plan, settings: Settings, losses: Losses, length: int, arm: str) -> int:
    """Where the search begins: at the best rate of the length before, or at the plan's."""
    shorter = [known for known in settings.lengths if known < length]
    before = best_octave(losses, settings, shorter[-1], arm) if shorter else None
    return octave_of(plan.arm[arm].lr) if before is None else before


def best_octave(losses: Losses, settings: Settings, length: int, arm: str) -> int | None:
    """Best rate of the first seed; None while it may lie at the edge of what was tried."""
    mine = {
        t.octave: y
        for t, y in losses.items()
        if t[:2] == (length, arm) and t[3] == settings.seeds[0]
    }
    if not mine:
        return None
    best = min(mine, key=lambda o: mine[o])
    return best if {best - 1, best + 1} <= set(mine) else None

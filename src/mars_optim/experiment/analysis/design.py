"""The trials of an arm of which more than the learning rate is tuned: which, in which order.

Pure functions of the plan and of the losses so far, so that a pilot that was stopped goes on by
asking again. The first trial is every arm's own default. The others have the same places in the
ranges for all arms: points of a scrambled Halton sequence, or what Optuna's TPE asks for, which is
told the finished trials in the order in which it asked for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any

from ...errors import need
from ..plan import Arm
from ..plan.tuning import Point, Span, TuningPlan, factor_at, place_of, point

Losses = Mapping[Point, float | None]
"""Score of each finished trial, less is better; None for a run that diverged."""


def trials(
    tuning: TuningPlan, name: str, arm: Arm, losses: Losses
) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    """The finished trials in order, and those that can start now.

    Args:
        tuning: of the plan.
        name: of the arm.
        arm: with its defaults.
        losses: of its finished trials.

    Raises:
        UserError: if the sampler is "tpe" and Optuna is not installed.
    """
    if tuning.sampler == "tpe":
        return _asked(tuning, name, arm, losses)
    design = points(tuning, name, arm)
    return tuple(p for p in design if p in losses), tuple(p for p in design if p not in losses)


def points(tuning: TuningPlan, name: str, arm: Arm) -> tuple[Point, ...]:
    """The default, and the points of the Halton sequence."""
    places = _halton(len(tuning.over), tuning.trials - 1, tuning.seed)
    spans = tuning.spans(name)
    return point(arm, {}), *(_at(arm, spans, place) for place in places)


def _at(arm: Arm, spans: Mapping[str, Span], place: Iterable[float]) -> Point:
    units = zip(spans.items(), place, strict=True)
    return point(arm, {what: factor_at(span, unit) for (what, span), unit in units})


@cache  # an agenda asks again and again
def _halton(dimensions: int, number: int, seed: int) -> tuple[tuple[float, ...], ...]:
    from scipy.stats.qmc import Halton  # slow to import

    found = Halton(dimensions, scramble=True, rng=seed).random(number)
    return tuple(tuple(row) for row in found.tolist())


def _asked(
    tuning: TuningPlan, name: str, arm: Arm, losses: Losses
) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    """Points that Optuna asks for, one after another, from the losses so far."""
    spans = tuple(tuning.spans(name).items())
    return _told(tuning.trials, tuning.seed, spans, arm, frozenset(losses.items()))


@lru_cache(maxsize=64)  # an agenda asks again and again, and each trial takes milliseconds
def _told(
    number: int,
    seed: int,
    spans: tuple[tuple[str, Span], ...],
    arm: Arm,
    losses: frozenset[tuple[Point, float | None]],
) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    study, known, made = _study(number, seed, spans), dict(losses), list[Point]()
    for _ in range(number):
        trial = study.ask()
        units = [trial.suggest_float(what, 0.0, 1.0) for what, _ in spans]
        at = _at(arm, dict(spans), units) if made else point(arm, {})
        if at not in known:
            return tuple(made), (at,)
        loss = known[at]
        study.tell(trial, math.inf if loss is None else loss)
        made.append(at)
    return tuple(made), ()


def _study(number: int, seed: int, spans: Iterable[tuple[str, Span]]) -> Any:
    """A study of an arm that has been told nothing; its first trial is to be the default."""
    optuna = need("optuna", "tune")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    startup = min(10, max(2, number // 3))
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, multivariate=True)
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial({what: place_of(span, 1.0) for what, span in spans})
    return study

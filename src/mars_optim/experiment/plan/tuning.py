"""How arms are tuned: what is tuned, in which ranges, and what a point of these is as an arm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from .any_arm import is_any
from .arms import Arm
from .table import Count, KeywordTable, Number, Positive, Whole, option, part, table

Span = tuple[Positive, Positive]
"""The lowest and the highest factor of an arm's own default."""

RATE_ONLY = ("lr",)
WIDE, NARROW = (0.125, 8.0), (0.25, 4.0)
SPANS: dict[str, Span] = {
    "lr": WIDE,
    "weight_decay": WIDE,
    "lr_1d": WIDE,
    "weight_decay_1d": WIDE,
    "beta1": NARROW,
    "beta2": NARROW,
    "gamma": NARROW,
    "clip": NARROW,
}
"""Settings that can be tuned, and their factors where the plan gives none; of a beta, those of
1 - beta."""
FEW = 8
"""Trials for each name in ``over``: with fewer, much of its range stays unseen."""
BETAS = ("beta1", "beta2")
IN_OPTIONS = (*BETAS, "weight_decay")
"""Settings that stand in the options of a class that an arm names."""
BY_COMMAND = "external"
"""The optimizer of an arm that a command makes."""


@table
class TuningPlan:
    """How the learning rate of each arm is found: the lowest point of a fit over its trials."""

    trials: Whole = option(5, "learning rates tried for each arm, at the least", ge=1, le=64)
    max_trials: Whole = option(
        16, "at the most, where the lowest point has no trials around it yet", ge=1, le=64
    )
    factor: Number = option(
        2.0, "between neighbouring learning rates; around the best, its square root", ge=1.25
    )
    seed: Whole = option(0, "seed of the tuning runs; not used again", ge=0)
    more_seeds: tuple[Count, ...] = option(
        (), "further tuning seeds: they repeat the trials around each arm's best"
    )
    over: tuple[str, ...] = option(
        RATE_ONLY,
        "what is tuned; with more than lr, every arm has just `trials` trials, the same for all in "
        f"units of its own defaults; known: {', '.join(SPANS)}; "
        "of a command lr and the names in arm.*.settings",
        sparse=True,
    )
    sampler: Literal["halton", "tpe"] = option(
        "halton",
        '"halton", or Optuna\'s "tpe", which looks at the losses so far (mars-optim[tune])',
        sparse=True,
    )
    range: dict[str, Span] = part(
        dict,
        "Lowest and highest factor of each arm's default; of a beta, of 1 - beta.",
        sparse=True,
    )
    arm: dict[str, dict[str, Span]] = part(
        dict, "The same for one arm; [1, 1] keeps its default.", sparse=True
    )

    @property
    def by_design(self) -> bool:
        """Whether more than the learning rate is tuned."""
        return self.over != RATE_ONLY

    def spans(self, arm: str) -> dict[str, Span]:
        """The factors of an arm's defaults between which each name in ``over`` is tuned."""
        return {name: self.given(arm).get(name) or SPANS[name] for name in self.over}

    def given(self, arm: str) -> dict[str, Span]:
        """The factors that the plan itself gives for an arm."""
        return {**self.range, **self.arm.get(arm, {})}


@dataclass(frozen=True, slots=True)
class Point:
    """One trial: an arm with the settings that are tried, and its learning rate."""

    arm: Arm
    lr: float


def point(arm: Arm, factors: Mapping[str, float]) -> Point:
    """The arm with each named setting at a factor of its default.

    Values have four significant digits; of a beta, 1 - beta has them. A command's setting that is
    a whole number stays one. A factor of 1 changes nothing.
    """
    values = {
        name: _scaled(arm, name, default_of(arm, name) or 0.0, factor)
        for name, factor in factors.items()
        if factor != 1.0
    }
    lr = values.pop("lr", arm.lr)
    if arm.optimizer == BY_COMMAND:
        return Point(_with_settings(arm, values), lr)
    changed: dict[str, Any] = {}
    if is_any(arm.optimizer):
        given = {name: values.pop(name) for name in IN_OPTIONS if name in values}
        changed = {"options": _with_options(arm, given)} if given else {}
    betas = tuple(values.pop(name, arm.betas[i]) for i, name in enumerate(BETAS))
    changed |= values
    if betas != arm.betas:
        changed["betas"] = betas
    if "lr_1d" in changed:  # as a ratio, so that it moves with lr along the ladder
        changed |= {"lr_1d": None, "lr_1d_ratio": float(f"{changed['lr_1d'] / lr:.4g}")}
    return Point(replace(arm, **changed) if changed else arm, lr)


def default_of(arm: Arm, name: str, lr: float | None = None) -> float | None:
    """An arm's own value of what can be tuned, at a rate; None or 0 where it has none."""
    if arm.optimizer == BY_COMMAND and name != "lr":
        return arm.settings.get(name)
    if is_any(arm.optimizer) and name != "lr":
        if name in IN_OPTIONS:
            return _option_of(arm, name)
        if name != "lr_1d" or arm.parameters == "all":
            return None
    if name in BETAS:
        return arm.betas[BETAS.index(name)]
    if name == "lr_1d":
        return arm.lr_1d or (lr or arm.lr) * (arm.lr_1d_ratio or 1.0)
    value: float | None = getattr(arm, name)
    return value


def _option_of(arm: Arm, name: str) -> float | None:
    """Value of ``name`` in an arm that names a class: betas and decay are keyword arguments."""
    value = arm.options.get(name)
    if name in BETAS:
        betas = arm.options.get("betas")
        value = betas[BETAS.index(name)] if isinstance(betas, list) and len(betas) > 1 else None
    return value if isinstance(value, int | float) else None


def _with_options(arm: Arm, given: Mapping[str, float]) -> KeywordTable:
    """An arm's keyword arguments with some of them changed."""
    options = {**arm.options, **{k: v for k, v in given.items() if k not in BETAS}}
    if set(given) & set(BETAS):
        betas = list(arm.options["betas"])
        for i, name in enumerate(BETAS):
            betas[i] = given.get(name, betas[i])
        options["betas"] = betas
    return KeywordTable(options)


def _with_settings(arm: Arm, given: Mapping[str, float]) -> Arm:
    """The arm of a command with some of its settings changed."""
    return replace(arm, settings=KeywordTable({**arm.settings, **given})) if given else arm


def value_at(at: Point, name: str) -> float:
    """Value of a name in ``over`` at a point."""
    return at.lr if name == "lr" else default_of(at.arm, name, at.lr) or 0.0


def from_one(name: str) -> bool:
    """Whether what counts is the distance from 1: of betas and, of a command, momenta."""
    return name.startswith(("beta", "momentum"))


def _scaled(arm: Arm, name: str, value: float, factor: float) -> float:
    if from_one(name):
        return round(1.0 - float(f"{(1.0 - value) * factor:.4g}"), 10)
    if arm.optimizer == BY_COMMAND and isinstance(value, int):
        return round(value * factor)
    return float(f"{value * factor:.4g}")


def same_but_tuned(arm: Arm, other: Arm, over: Sequence[str]) -> bool:
    """Whether two arms differ in nothing but what is tuned."""
    if arm.optimizer == BY_COMMAND:
        both = arm.settings.keys() & other.settings.keys() & set(over)
        return _with_settings(arm, {name: other.settings[name] for name in both}) == other
    names = [name for name in over if name not in (*RATE_ONLY, *BETAS)]
    names += ["lr_1d_ratio"] * ("lr_1d" in names)
    betas = [(other if name in over else arm).betas[i] for i, name in enumerate(BETAS)]
    if is_any(arm.optimizer) and is_any(other.optimizer):
        known = {name: _option_of(other, name) for name in over if name in IN_OPTIONS}
        given = {k: v for k, v in known.items() if v is not None and _option_of(arm, k) is not None}
        arm = replace(arm, options=_with_options(arm, given))
        names = [name for name in names if name not in IN_OPTIONS]
    kept: dict[str, Any] = {name: getattr(other, name) for name in names}
    return replace(arm, **kept, betas=(betas[0], betas[1])) == other


def few_trials(tuning: TuningPlan) -> str:
    """A warning where the trials are few for what is tuned; else nothing."""
    wanted = FEW * len(tuning.over)
    if not tuning.by_design or tuning.trials >= wanted:
        return ""
    return (
        f"tuning.trials = {tuning.trials} are few for tuning.over = {list(tuning.over)}: "
        f"they cover little of the ranges, so the interval is wide; {wanted} or more are "
        "better"
    )


def factor_at(span: Span, place: float) -> float:
    """The factor at a place from 0 to 1 in its range, evenly in the logarithm."""
    low, high = span
    return low * math.exp(place * math.log(high / low))


def place_of(span: Span, factor: float) -> float:
    """The inverse of :func:`factor_at`; the nearer end for a factor outside of the range."""
    low, high = span
    if low == high:
        return 0.5
    return min(1.0, max(0.0, math.log(factor / low) / math.log(high / low)))

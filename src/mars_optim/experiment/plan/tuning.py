"""How arms are tuned: what is tuned, in which ranges, and what a point of these is as an arm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...errors import UserError, did_you_mean
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
"""What can be tuned, and the factors where the plan gives none; of a beta, those of 1 - beta."""
FEW = 8
"""Trials for each name in ``over``: with fewer, much of its range stays unseen."""
_BETAS = ("beta1", "beta2")
_IN_OPTIONS = (*_BETAS, "weight_decay")  # of a class that an arm names


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
        f"units of its own defaults; known: {', '.join(SPANS)}",
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
        given = {**SPANS, **self.range, **self.arm.get(arm, {})}
        return {name: given[name] for name in self.over}


@dataclass(frozen=True, slots=True)
class Point:
    """One trial: an arm with the settings that are tried, and its learning rate."""

    arm: Arm
    lr: float


def point(arm: Arm, factors: Mapping[str, float]) -> Point:
    """The arm with each named setting at a factor of its default.

    Values have four significant digits; of a beta, 1 - beta has them. A factor of 1 changes
    nothing.
    """
    values = {
        name: _scaled(name, default_of(arm, name) or 0.0, factor)
        for name, factor in factors.items()
        if factor != 1.0
    }
    lr = values.pop("lr", arm.lr)
    changed: dict[str, Any] = {}
    if is_any(arm.optimizer):
        given = {name: values.pop(name) for name in _IN_OPTIONS if name in values}
        changed = {"options": _with_options(arm, given)} if given else {}
    betas = tuple(values.pop(name, arm.betas[i]) for i, name in enumerate(_BETAS))
    changed |= values
    if betas != arm.betas:
        changed["betas"] = betas
    if "lr_1d" in changed:  # as a ratio, so that it moves with lr along the ladder
        changed |= {"lr_1d": None, "lr_1d_ratio": float(f"{changed['lr_1d'] / lr:.4g}")}
    return Point(replace(arm, **changed) if changed else arm, lr)


def default_of(arm: Arm, name: str, lr: float | None = None) -> float | None:
    """An arm's own value of what can be tuned, at a rate; None or 0 where it has none."""
    if is_any(arm.optimizer) and name != "lr":
        if name in _IN_OPTIONS:
            return _option_of(arm, name)
        if name != "lr_1d" or arm.parameters == "all":
            return None
    if name in _BETAS:
        return arm.betas[_BETAS.index(name)]
    if name == "lr_1d":
        return arm.lr_1d or (lr or arm.lr) * (arm.lr_1d_ratio or 1.0)
    value: float | None = getattr(arm, name)
    return value


def _option_of(arm: Arm, name: str) -> float | None:
    """Value of ``name`` in an arm that names a class: betas and decay are keyword arguments."""
    value = arm.options.get(name)
    if name in _BETAS:
        betas = arm.options.get("betas")
        value = betas[_BETAS.index(name)] if isinstance(betas, list) and len(betas) > 1 else None
    return value if isinstance(value, int | float) else None


def _with_options(arm: Arm, given: Mapping[str, float]) -> KeywordTable:
    """An arm's keyword arguments with some of them changed."""
    options = {**arm.options, **{k: v for k, v in given.items() if k not in _BETAS}}
    if set(given) & set(_BETAS):
        betas = list(arm.options["betas"])
        for i, name in enumerate(_BETAS):
            betas[i] = given.get(name, betas[i])
        options["betas"] = betas
    return KeywordTable(options)


def value_at(at: Point, name: str) -> float:
    """What a name in ``over`` is at a point."""
    return at.lr if name == "lr" else default_of(at.arm, name, at.lr) or 0.0


def _scaled(name: str, value: float, factor: float) -> float:
    if name in _BETAS:
        return round(1.0 - float(f"{(1.0 - value) * factor:.4g}"), 10)
    return float(f"{value * factor:.4g}")


def same_but_tuned(arm: Arm, other: Arm, over: Sequence[str]) -> bool:
    """Whether two arms differ in nothing but what is tuned."""
    names = [name for name in over if name not in (*RATE_ONLY, *_BETAS)]
    names += ["lr_1d_ratio"] * ("lr_1d" in names)
    betas = [(other if name in over else arm).betas[i] for i, name in enumerate(_BETAS)]
    if is_any(arm.optimizer) and is_any(other.optimizer):
        known = {name: _option_of(other, name) for name in over if name in _IN_OPTIONS}
        given = {k: v for k, v in known.items() if v is not None and _option_of(arm, k) is not None}
        arm = replace(arm, options=_with_options(arm, given))
        names = [name for name in names if name not in _IN_OPTIONS]
    kept: dict[str, Any] = {name: getattr(other, name) for name in names}
    return replace(arm, **kept, betas=(betas[0], betas[1])) == other


def few_trials(tuning: TuningPlan) -> str:
    """A warning where the trials are few for what is tuned; else nothing."""
    wanted = FEW * len(tuning.over)
    if not tuning.by_design or tuning.trials >= wanted:
        return ""
    return (
        f"tuning.trials = {tuning.trials} are few for tuning.over = {list(tuning.over)}: much of "
        f"the ranges stays unseen, and the interval is as wide as that; {wanted} or more tell more"
    )


def check_tuning(tuning: TuningPlan, arms: Mapping[str, Arm], min_lr: float) -> None:
    """See that what is tuned is known, that each arm has it, and that its range is allowed.

    Args:
        tuning: of a plan.
        arms: of the same.
        min_lr: where schedules end.

    Raises:
        UserError: naming the key.
    """
    if not tuning.by_design:
        _check_rate_only(tuning)
        return
    _check_names(tuning, arms)
    if len(set(tuning.over)) < len(tuning.over):
        raise UserError(f"tuning.over = {list(tuning.over)} names one twice")
    if "lr" not in tuning.over:
        raise UserError(
            f"tuning.over = {list(tuning.over)} must hold 'lr': with other settings another "
            "learning rate is best"
        )
    if tuning.more_seeds:
        raise UserError(
            f"tuning.more_seeds = {list(tuning.more_seeds)} repeats trials of the learning rate "
            "alone: leave it out, and raise tuning.trials, or set tuning.over = ['lr']"
        )
    if tuning.trials <= len(tuning.over):
        raise UserError(
            f"tuning.trials = {tuning.trials} must be more than the {len(tuning.over)} names in "
            f"tuning.over; {FEW * len(tuning.over)} tell more"
        )
    for name, arm in arms.items():
        for what, span in tuning.spans(name).items():
            _check_span(name, arm, what, span, min_lr)


def _check_rate_only(tuning: TuningPlan) -> None:
    given = {"sampler": tuning.sampler != "halton", "range": tuning.range, "arm": tuning.arm}
    for key, is_given in given.items():
        if is_given:
            raise UserError(
                f"tuning.{key} goes with more than the learning rate in tuning.over, whose search "
                "by itself has no ranges: set tuning.over = ['lr', 'weight_decay'], or leave it out"
            )


def _check_names(tuning: TuningPlan, arms: Mapping[str, Arm]) -> None:
    for what in tuning.over:
        if what not in SPANS:
            hint = did_you_mean(what, SPANS) or f"; known: {', '.join(SPANS)}"
            raise UserError(f"tuning.over = {list(tuning.over)} holds the unknown {what!r}{hint}")
    for name in tuning.arm:
        if name not in arms:
            hint = did_you_mean(name, arms)
            raise UserError(f"tuning.arm.{name} is not among arms = {list(arms)}{hint}")
    tables = {"range": tuning.range, **{f"arm.{n}": spans for n, spans in tuning.arm.items()}}
    for path, spans in tables.items():
        for what in spans:
            if what not in tuning.over:
                hint = did_you_mean(what, tuning.over)
                raise UserError(
                    f"tuning.{path}.{what} is not among tuning.over = {list(tuning.over)}{hint}"
                )


def _check_span(name: str, arm: Arm, what: str, span: Span, min_lr: float) -> None:
    low, high = span
    path = f"tuning.arm.{name}.{what}"
    if arm.optimizer == "external" and what != "lr":
        raise UserError(
            f"tuning.over holds {what!r}, which {name} does not have: a command is handed its "
            "learning rate as {lr}, and no other setting; set tuning.over = ['lr']"
        )
    if low == high == 1.0:
        return  # kept as it is
    if not low < high:
        raise UserError(f"{path} = {list(span)} must be a lower and a higher factor of its default")
    default = default_of(arm, what)
    if default is None or (default == 0 and what not in _BETAS):
        raise UserError(
            f"tuning.over holds {what!r}, which {name} does not have, or has as 0, of which no "
            f"factor is another value: set arm.{name}.{_key(arm, what)}, or {path} = [1, 1] to "
            "keep it"
        )
    for factor in span:
        try:
            found = point(arm, {what: factor})
            replace(arm, lr=found.lr)
        except UserError as error:
            raise UserError(
                f"{path} = {list(span)} times {what}'s {default:g} leaves what is allowed "
                f"({error}): set narrower factors"
            ) from None
        if found.lr <= min_lr:
            raise UserError(
                f"{path} = {list(span)} leads to lr = {found.lr:g}, which must be above "
                f"training.min_lr = {min_lr:g}: set narrower factors"
            )


def _key(arm: Arm, what: str) -> str:
    key = "betas" if what in _BETAS else what
    return f"options.{key}" if is_any(arm.optimizer) and what in _IN_OPTIONS else key


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

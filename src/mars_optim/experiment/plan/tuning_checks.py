"""Checks of a plan's tuning: each mistake is named in one line, before the first run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...errors import UserError, did_you_mean
from .any_arm import is_any
from .arms import Arm
from .tuning import (
    BETAS,
    BY_COMMAND,
    FEW,
    IN_OPTIONS,
    SPANS,
    Span,
    TuningPlan,
    default_of,
    from_one,
    point,
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
    _check_ranges_of_commands(tuning, arms)
    if len(set(tuning.over)) < len(tuning.over):
        raise UserError(f"tuning.over = {list(tuning.over)} names a setting twice")
    if "lr" not in tuning.over:
        raise UserError(
            f"tuning.over = {list(tuning.over)} must hold 'lr', since the best learning rate "
            "depends on the other settings"
        )
    if tuning.more_seeds:
        raise UserError(
            f"tuning.more_seeds = {list(tuning.more_seeds)} works only where the learning "
            "rate alone is tuned: leave it out and raise tuning.trials, or set tuning.over = "
            "['lr']"
        )
    if tuning.trials <= len(tuning.over):
        raise UserError(
            f"tuning.trials = {tuning.trials} must be more than the {len(tuning.over)} names "
            f"in tuning.over; {FEW * len(tuning.over)} are better"
        )
    for name, arm in arms.items():
        for what, span in tuning.spans(name).items():
            _check_span(name, arm, what, span, min_lr)


def _check_rate_only(tuning: TuningPlan) -> None:
    given = {"sampler": tuning.sampler != "halton", "range": tuning.range, "arm": tuning.arm}
    for key, is_given in given.items():
        if is_given:
            raise UserError(
                f"tuning.{key} works only where tuning.over has more than the learning rate, "
                "whose own search has no ranges: set tuning.over = ['lr', 'weight_decay'], "
                "or leave it out"
            )


def _check_names(tuning: TuningPlan, arms: Mapping[str, Arm]) -> None:
    known = _known(arms)
    for what in tuning.over:
        if what not in known:
            more = "; others of a command need a start in arm.*.settings" * _by_command(arms)
            hint = did_you_mean(what, known) or f"; known: {', '.join(known)}{more}"
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
    if low == high == 1.0:
        return  # kept as it is
    if not low < high:
        raise UserError(
            f"{path} = {list(span)} must be a lower and a higher factor of the setting's default"
        )
    default = default_of(arm, what)
    if default is None or (default == 0 and not from_one(what)):
        raise UserError(
            f"tuning.over holds {what!r}, which {name} does not have, or has as 0, so that no "
            f"factor changes it: set arm.{name}.{_key(arm, what)}, or {path} = [1, 1] to keep "
            "it"
        )
    _check_setting(path, arm, what, default, span)
    for factor in span:
        try:
            found = point(arm, {what: factor})
            replace(arm, lr=found.lr)
        except UserError as error:
            raise UserError(
                f"{path} = {list(span)} times {what}'s {default:g} is outside the allowed "
                f"range ({error}): set narrower factors"
            ) from None
        if found.lr <= min_lr:
            raise UserError(
                f"{path} = {list(span)} leads to lr = {found.lr:g}, which must be above "
                f"training.min_lr = {min_lr:g}: set narrower factors"
            )


def _check_setting(path: str, arm: Arm, what: str, start: float, span: Span) -> None:
    """Check a command's setting, of which only name, start and range are known."""
    if arm.optimizer != BY_COMMAND or what == "lr":
        return
    low, high = span
    if from_one(what) and not 0 <= 1 - (1 - start) * high < 1:
        raise UserError(
            f"{path} = {list(span)} are factors of 1 - {what}, which is {1 - start:g}, and "
            "lead outside 0 to 1: set narrower factors"
        )
    if isinstance(start, int) and not from_one(what) and round(start * low) == 0:
        raise UserError(
            f"{path} = {list(span)} times {what}'s whole number {start} leads to 0: write "
            f"{float(start)} if it may be a fraction, or set narrower factors"
        )


def _known(arms: Mapping[str, Arm]) -> tuple[str, ...]:
    """Settings that can be tuned: ours or, for a command, its rate and those with a start in
    arms."""
    if not _by_command(arms):
        return tuple(SPANS)
    return ("lr", *sorted({name for arm in arms.values() for name in arm.settings}))


def _by_command(arms: Mapping[str, Arm]) -> bool:
    return any(arm.optimizer == BY_COMMAND for arm in arms.values())


def _check_ranges_of_commands(tuning: TuningPlan, arms: Mapping[str, Arm]) -> None:
    """A command has no defaults of ours, so that each range is to be given."""
    for name in arms if _by_command(arms) else ():
        for what in tuning.over:
            if what not in tuning.given(name):
                raise UserError(
                    f"tuning.range.{what} must be given, since a command has no published "
                    "ranges: the lowest and the highest factor of each arm's start, such as "
                    f"{what} = [0.25, 4.0]"
                )


def _key(arm: Arm, what: str) -> str:
    if arm.optimizer == BY_COMMAND:
        return f"settings.{what}"
    key = "betas" if what in BETAS else what
    return f"options.{key}" if is_any(arm.optimizer) and what in IN_OPTIONS else key

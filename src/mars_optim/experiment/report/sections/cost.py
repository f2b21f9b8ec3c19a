"""Hours, memory and money: what a switch saves on the real job, and what the pilot cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from ...analysis import Analysis, ArmResult, Interval
from ...analysis.arm_model import side
from ...analysis.money import Money
from .. import numbers
from ..document import Block, Cell, Section, Table, Text, Tile
from ..messages import Messages
from ..savings import bounded, ends

Row = tuple[str, str]


def section(analysis: Analysis, say: Messages, out: Path) -> Section:
    """A table, how it was reckoned, and how to get money where there is no price."""
    rows = tuple((Cell(label), Cell(value)) for label, value in _rows(analysis, say))
    blocks: list[Block] = [Table(say("table.cost"), (), rows), Text(say("cost.how"))]
    if analysis.candidate.step_time is None and analysis.plan.task.kind == "command":
        blocks.append(Text(say("cost.no-step-time")))
    if analysis.at_target and analysis.money:
        code = "cost.at-target" if analysis.at_target.log_ratio else "cost.not-at-target"
        target = analysis.plan.target
        blocks.append(Text(say(code, parameters=target.parameters, tokens=target.tokens)))
    if not analysis.plan.cost.price_per_hour:
        blocks.append(Text(say("cost.give-a-price", out=out.as_posix())))
    return Section("cost", say("section.cost"), tuple(blocks))


def _rows(analysis: Analysis, say: Messages) -> list[Row]:
    """Label and value of what is known."""
    candidate, money, currency = analysis.candidate, analysis.money, analysis.plan.cost.currency
    rows: list[Row] = []
    if money and math.isfinite(money.share.low):
        rows += _job_rows(money, analysis.real_bounds, say)
    if candidate.step_time:
        value = f"{candidate.step_time[0]:.2f}"
        ratio = say("with-interval", value=value, ends=quartiles(candidate, say))
        rows.append((say("cost.step-time"), ratio))
    if candidate.bytes_per_parameter:
        memory = say(
            "cost.memory-value",
            candidate=candidate.bytes_per_parameter,
            baseline=analysis.baseline.name,
            theirs=analysis.baseline.bytes_per_parameter,
        )
        rows.append((say("cost.memory"), memory))
    rows.append((say("cost.pilot-time"), say.duration(analysis.totals.seconds)))
    if money and money.pilot_money:
        rows.append((say("cost.pilot-money"), numbers.money(money.pilot_money, currency)))
    return rows


def quartiles(arm: ArmResult, say: Messages) -> str:
    """Quartiles of the ratio of an arm's step time to the baseline's."""
    if arm.step_time is None:
        return ""
    low, high = (f"{value:.2f}" for value in arm.step_time[1:])
    return say("between", low=low, high=high)


def _job_rows(money: Money, bounds: set[str], say: Messages) -> list[Row]:
    """Rows of the real job: tokens, hours, money, what is left after the pilot, break-even."""

    def in_money(amount: float) -> str:
        return numbers.money(amount, money.currency)

    def known(value: Interval, show: Callable[[float], str]) -> str:
        mean = bounded(bounds) + show(value.mean)
        return say("with-interval", value=mean, ends=ends(value, say, bounds, show))

    rows, job = [], money.job
    if money.tokens and job.tokens:
        rows.append((say("cost.tokens", planned=job.tokens), known(money.tokens, _count)))
    rows.append((say("cost.hours", planned=job.hours), known(money.hours, numbers.whole)))
    if money.money and money.net:
        rows += [
            (say("cost.money", total=in_money(job.money)), known(money.money, in_money)),
            (say("cost.net"), known(money.net, in_money)),
            (
                say("cost.downside"),
                say("unknown") if "at most" in bounds else in_money(money.net.low),
            ),
            (say("cost.break-even"), _break_even(money, bounds, say)),
        ]
    return rows


def _break_even(money: Money, bounds: set[str], say: Messages) -> str:
    known = side(bounds)
    if known == "both" or (known == "at-least" and money.break_even_hours is None):
        return say("unknown")
    if known and money.break_even_hours is not None:
        return say(f"cost.break-even-value.{known}", hours=money.break_even_hours)
    if money.break_even_hours is None:
        return say("cost.break-even-never")
    if money.break_even_hours_low is None:
        return say("cost.break-even-open", hours=money.break_even_hours)
    return say(
        "cost.break-even-value", hours=money.break_even_hours, low=money.break_even_hours_low
    )


def _count(n: float) -> str:
    return f"{numbers.MINUS if n < 0 else ''}{numbers.count(abs(n))}"


PLACE = "cost"  # of the numbers behind both tiles


def hours_tile(analysis: Analysis, say: Messages) -> Tile:
    """Hours saved, for the first screen."""
    label, known, bounds = say("tile.hours"), analysis.money, analysis.real_bounds
    if known is None:
        return Tile(label, say("none"), say("tile.not-known"), PLACE)
    sign, share = bounded(bounds), known.share
    values = dict(hours=known.hours.mean, planned=known.job.hours, sign=sign)
    forecast = analysis.at_target is not None and analysis.at_target.log_ratio is not None
    code = "tile.hours-at-target" if forecast else "tile.hours-of"
    detail = say(code, **values, ends=ends(share, say, bounds))
    return Tile(label, sign + say.percent(share.mean), detail, PLACE)


def money_tile(analysis: Analysis, say: Messages) -> Tile:
    """Money saved, for the first screen."""
    label, money = say("tile.money"), analysis.money
    if not analysis.plan.cost.price_per_hour:
        return Tile(label, say("none"), say("tile.no-price"), PLACE)
    if money is None or money.money is None:
        return Tile(label, say("none"), say("tile.not-known"), PLACE)
    bounds = analysis.real_bounds
    value = bounded(bounds) + numbers.money(money.money.mean, money.currency)
    return Tile(label, value, ends(money.money, say, bounds, numbers.whole), PLACE)

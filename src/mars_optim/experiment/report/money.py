"""Hours, memory and money: what a switch saves on the real job, and what the pilot cost."""

from __future__ import annotations

import math
from pathlib import Path

from ..analysis import Analysis, Interval
from ..analysis.model import Money
from . import evidence, numbers
from .document import Block, Cell, Section, Table, Text, Tile
from .messages import Messages

Row = tuple[str, str]


def section(analysis: Analysis, words: Messages, out: Path) -> Section:
    """A table, how it was reckoned, and how to get money where there is no price."""
    rows = tuple((Cell(label), Cell(value)) for label, value in cost_rows(analysis, words))
    blocks: list[Block] = [Table(words("table.cost"), (), rows), Text(words("cost.how"))]
    if not analysis.plan.cost.price_per_hour:
        blocks.append(Text(words("cost.give-a-price", out=out.as_posix())))
    return Section("cost", words("section.cost"), tuple(blocks))


def cost_rows(analysis: Analysis, words: Messages) -> list[Row]:
    """Label and value of what is known."""
    candidate, money, currency = analysis.candidate, analysis.money, analysis.plan.cost.currency
    rows: list[Row] = []
    if money and math.isfinite(money.share.low):
        rows += _job_rows(money, words)
    if candidate.step_time:
        rows.append((words("cost.step-time"), evidence.step_time(candidate, words)))
    if candidate.bytes_per_parameter:
        memory = words(
            "cost.memory-value",
            candidate=candidate.bytes_per_parameter,
            baseline=analysis.baseline.name,
            theirs=analysis.baseline.bytes_per_parameter,
        )
        rows.append((words("cost.memory"), memory))
    rows.append((words("cost.pilot-time"), words.duration(analysis.totals.seconds)))
    if money and money.pilot_money:
        rows.append((words("cost.pilot-money"), numbers.money(money.pilot_money, currency)))
    return rows


def _job_rows(money: Money, words: Messages) -> list[Row]:
    """Of the real job: tokens, hours, money, what is left after the pilot, break-even."""

    def in_money(amount: float) -> str:
        return numbers.money(amount, money.currency)

    def known(value: Interval, total: str) -> str:
        show = in_money if total == "money" else numbers.whole
        return words("with-interval", value=show(value.mean), ends=words.between(value, show))

    job = money.job
    rows = [(words("cost.hours", planned=job.hours), known(money.hours, "hours"))]
    if money.tokens and job.tokens:
        tokens = words(
            "with-interval",
            value=_count(money.tokens.mean),
            ends=words.between(money.tokens, _count),
        )
        rows.insert(0, (words("cost.tokens", planned=job.tokens), tokens))
    if money.money and money.net:
        rows += [
            (words("cost.money", total=in_money(job.money)), known(money.money, "money")),
            (words("cost.net"), known(money.net, "money")),
            (words("cost.downside"), in_money(money.net.low)),
            (words("cost.break-even"), _break_even(money, words)),
        ]
    return rows


def _break_even(money: Money, words: Messages) -> str:
    if money.break_even_hours is None:
        return words("cost.break-even-never")
    if money.break_even_hours_low is None:
        return words("cost.break-even-open", hours=money.break_even_hours)
    return words(
        "cost.break-even-value", hours=money.break_even_hours, low=money.break_even_hours_low
    )


def _count(n: float) -> str:
    return f"{numbers.MINUS if n < 0 else ''}{numbers.count(abs(n))}"


def tile(analysis: Analysis, words: Messages) -> Tile:
    """Money saved, for the first screen."""
    label, money = words("tile.money"), analysis.money
    if not analysis.plan.cost.price_per_hour:
        return Tile(label, words("none"), words("tile.no-price"))
    if money is None or money.money is None:
        return Tile(label, words("none"), words("tile.not-known"))
    value = numbers.money(money.money.mean, money.currency)
    if not math.isfinite(money.money.low):
        return Tile(label, value, words("one-pair"))
    return Tile(label, value, words.between(money.money, numbers.whole))

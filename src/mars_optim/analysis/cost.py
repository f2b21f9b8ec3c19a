"""Hours and money: what the tokens saved are worth on the real job, and what the pilot cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..records.plan import CostPlan
from .stats import Interval, combine
from .verdict import saved

# standard error of a median = 1.2533 sd / sqrt(n), and the quartiles of a normal are 1.349 sd apart
MEDIAN_ERROR = 1.2533 / 1.349


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Time of a training step, as a ratio to the baseline's.

    Args:
        ratio: median over the rounds.
        low: lower quartile.
        high: upper quartile.
        rounds: of the measurement.
    """

    ratio: float
    low: float
    high: float
    rounds: int

    def log_interval(self, confidence: float) -> Interval:
        """Of the log of the ratio: the standard error of a median, from the quartiles."""
        spread = math.log(self.high / self.low) if self.low > 0 else 0.0
        sd = MEDIAN_ERROR * spread  # so that sd / sqrt(n) is the standard error
        return Interval.of(math.log(self.ratio), sd, self.rounds, confidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The real job, as it is trained today with the baseline.

    Args:
        hours: of the whole fleet, by the clock.
        tokens: trained on; None if the plan does not tell.
        price_per_hour: of the whole fleet.
    """

    hours: float
    tokens: float | None
    price_per_hour: float

    @property
    def money(self) -> float:
        """What it costs today."""
        return self.hours * self.price_per_hour


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """The saving in hours and, at a price, in money, with intervals.

    Args:
        currency: any text.
        job: as it is today.
        share: of the hours saved: tokens saved, with the step time on top.
        hours: saved, of the job's.
        tokens: saved, of the job's; None if the plan does not tell how many there are.
        money: saved, of the job's, before the pilot is paid; None without a price.
        pilot_hours: training time of all runs of the pilot, as if one after another.
        pilot_money: what they cost; 0 without a price.
        net: ``money`` less ``pilot_money``: its lower end is the downside. None without a price.
        break_even_hours: of a job whose saving pays for the pilot, at the estimate; None if there
            is no saving or no price.
        break_even_hours_low: likewise, at the lower end of the interval.
    """

    currency: str
    job: Job
    share: Interval
    hours: Interval
    tokens: Interval | None
    money: Interval | None
    pilot_hours: float
    pilot_money: float
    net: Interval | None
    break_even_hours: float | None
    break_even_hours_low: float | None

    @property
    def break_even_tokens(self) -> float | None:
        """``break_even_hours`` in tokens; None where either is not known."""
        if self.break_even_hours is None or self.job.tokens is None:
            return None
        return self.break_even_hours * self.job.tokens / self.job.hours


def job_of(cost: CostPlan) -> Job:
    """The real job that the plan describes; planned tokens at a speed win over planned hours."""
    price = cost.price_per_hour * cost.devices
    if cost.planned_tokens and cost.tokens_per_hour:
        hours = cost.planned_tokens / cost.tokens_per_hour
        return Job(hours=hours, tokens=cost.planned_tokens, price_per_hour=price)
    tokens = cost.planned_tokens or cost.tokens_per_hour * cost.planned_hours
    return Job(hours=cost.planned_hours, tokens=tokens or None, price_per_hour=price)


def share_of_hours(log_ratio: Interval, step_time: StepTime, confidence: float) -> Interval:
    """Share of the hours saved: 1 - step time ratio / token ratio.

    The two are measured apart from each other, so the half widths of their logs add in quadrature.

    Args:
        log_ratio: log of (tokens the baseline needs / tokens taken).
        step_time: of the candidate.
        confidence: of both intervals.
    """
    return combine(log_ratio, step_time.log_interval(confidence), sign=-1).map(saved)


def money_of(
    cost: CostPlan,
    log_ratio: Interval,
    step_time: StepTime,
    *,
    confidence: float,
    pilot_seconds: float,
) -> Money:
    """What the candidate saves on the job that the plan describes.

    Args:
        cost: the plan's table.
        log_ratio: log of (tokens the baseline needs / tokens taken).
        step_time: of the candidate.
        confidence: of the intervals.
        pilot_seconds: training time of all runs of the pilot.
    """
    job, share = job_of(cost), share_of_hours(log_ratio, step_time, confidence)
    pilot_hours = pilot_seconds / 3600
    pilot_money = pilot_price(cost) * pilot_hours
    money = share.map(lambda value: value * job.money) if job.money else None
    total = job.tokens

    def break_even(value: float) -> float | None:
        return pilot_money / (value * job.price_per_hour) if money and value > 0 else None

    return Money(
        currency=cost.currency,
        job=job,
        share=share,
        hours=share.map(lambda value: value * job.hours),
        tokens=log_ratio.map(lambda r: saved(r) * total) if total else None,
        money=money,
        pilot_hours=pilot_hours,
        pilot_money=pilot_money,
        net=money.map(lambda value: value - pilot_money) if money else None,
        break_even_hours=break_even(share.mean),
        break_even_hours_low=break_even(share.low),
    )


def pilot_price(cost: CostPlan) -> float:
    """Per hour, of the pilot's machine: one device of the job's, unless the plan says otherwise."""
    return cost.pilot_price_per_hour or cost.price_per_hour

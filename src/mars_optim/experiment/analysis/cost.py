"""Hours and money: what the tokens saved are worth on the real job, and what the pilot cost."""

from __future__ import annotations

from ..plan.cost import CostPlan
from .money import Money, ProductionJob, StepTime
from .stats import Interval, combine, saved


def production_job(cost: CostPlan) -> ProductionJob:
    """The real job that the plan describes; planned tokens at a speed win over planned hours."""
    price = cost.price_per_hour * cost.devices
    if cost.planned_tokens and cost.tokens_per_hour:
        hours = cost.planned_tokens / cost.tokens_per_hour
        return ProductionJob(hours=hours, tokens=cost.planned_tokens, price_per_hour=price)
    tokens = cost.planned_tokens or cost.tokens_per_hour * cost.planned_hours
    return ProductionJob(hours=cost.planned_hours, tokens=tokens or None, price_per_hour=price)


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
    """Savings of the candidate on the job that the plan describes.

    Args:
        cost: the plan's table.
        log_ratio: log of (tokens the baseline needs / tokens taken).
        step_time: of the candidate.
        confidence: of the intervals.
        pilot_seconds: training time of all runs of the pilot.
    """
    job, share = production_job(cost), share_of_hours(log_ratio, step_time, confidence)
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

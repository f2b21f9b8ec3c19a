"""The production job, its step time and what a switch saves on it, as plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .stats import Interval

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
        """Interval of the log of the ratio: the standard error of a median, from the quartiles."""
        spread = math.log(self.high / self.low) if self.low > 0 else 0.0
        sd = MEDIAN_ERROR * spread  # so that sd / sqrt(n) is the standard error
        return Interval.of(math.log(self.ratio), sd, self.rounds, confidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductionJob:
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
        """Cost today."""
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
    job: ProductionJob
    share: Interval
    hours: Interval
    tokens: Interval | None
    money: Interval | None
    pilot_hours: float
    pilot_money: float
    net: Interval | None
    break_even_hours: float | None
    break_even_hours_low: float | None

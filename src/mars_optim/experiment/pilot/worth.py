"""Which pilot buys the most: designs of a pilot, weighed by what their decisions are worth.

A decision is worth what it saves on the real job. With the true log token ratio theta, known
beforehand as Normal(prior mean, prior sd), and a switch that costs the least saving that the plan
asks for,

    gain(theta) = (1 - exp(-theta) * step time ratio - min_saving) * price of the job
    worth(design) = E[gain(theta) 1{go}] - max(0, E[gain(theta)]) - price(design)

The second term is the best that can be done without a pilot: to stay, or to switch unseen. The
expectation is over theta and over the pilot's own pairs, by simulation; so are the chance of a go
and the number of pairs, from which the average price is (:mod:`.designs`).
"""

from __future__ import annotations

import math
import operator
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ..plan import Plan
from .designs import (
    Course,
    Variant,
    error_of,
    finished,
    money,
    searched,
    shift_of,
    variants,
)
from .price import Timings
from .simulated_verdicts import ladder_errors, verdicts

DRAWS = 20_000
PER_DOUBLING = 0.07
"""Standard deviation of a log token ratio from runs of half the length, as evidence on whole ones:
of one model, 22 % saved at 698 steps were 10 % at 2,792 (docs/size-and-length.md)."""

PRIOR_MEAN = 0.06
PRIOR_SD = 0.08
"""Spread of log token ratios of MARS-AdamW to AdamW, both tuned.

12 cells of Marin's sweeps (130 M to 520 M parameters, 1 to 8 times 20 tokens a parameter; arXiv
2509.02046) have mean 0.07 and sd 0.06, read along AdamW's own losses. The mean is drawn towards 0
and the sd raised, since no job is one of theirs, and published gains are larger than those of
others' repeats."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """Prior of the log token ratio before the pilot: normal."""

    mean: float = PRIOR_MEAN
    sd: float = PRIOR_SD


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The job that a decision is about.

    Args:
        money: price of the real job, with the baseline.
        step_time: of the candidate, over the baseline's.
        min_saving: share of the job that a switch costs.
    """

    money: float
    step_time: float
    min_saving: float

    @property
    def pays_from(self) -> float:
        """Share of tokens saved at which a switch gains nothing and loses nothing."""
        return 1.0 - (1.0 - self.min_saving) / self.step_time

    def gain(self, theta: Floats) -> Floats:
        """Money that a switch gains at these log token ratios."""
        found: Floats = (1.0 - np.exp(-theta) * self.step_time - self.min_saving) * self.money
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """One way to make the comparison, and what it buys.

    Args:
        variant: the plan that makes it, and its settings.
        pairs: that are run on average.
        price: of the whole pilot: on average, and at the most.
        go: chance of this verdict; likewise ``no_go``.
        no_go: see go.
        gain: expected gain of the decision, the price not taken off.
        worth: gain less the best without a pilot less the average price.
    """

    variant: Variant
    pairs: float
    price: tuple[float, float]
    go: float
    no_go: float
    gain: float
    worth: float

    @property
    def options(self) -> str:
        """Options of ``mars pilot`` that carry it out."""
        return " ".join(f"--set {shlex.quote(setting)}" for setting in self.variant.settings)


def without_pilot(job: Job, prior: Prior) -> float:
    """The best expected gain without a pilot: 0 to stay, or that of a switch unseen."""
    return max(0.0, float(job.gain(_thetas(prior)).mean()))


def checked_prior(saving: float | None = None, sd: float | None = None) -> Prior:
    """The prior of a share of tokens saved, with its spread; None for the published one's.

    Raises:
        UserError: where there is no such prior.
    """
    if saving is None:
        saving = -math.expm1(-PRIOR_MEAN)
    if sd is None:
        sd = PRIOR_SD
    if not -10.0 <= saving < 1.0:
        raise UserError(
            f"--prior-saving {saving:g} must be a share of tokens, at least -10 and below 1"
        )
    if not 0.0 < sd <= 2.0:
        raise UserError(f"--prior-sd {sd:g} must be above 0 and at most 2 (of log tokens)")
    return Prior(mean=-math.log1p(-saving), sd=sd)


def budget_of(plan: Plan, budget: float | None, price: float | None, hours: float | None) -> Plan:
    """The plan with the budget's price; by hours, an hour is the unit of money.

    Raises:
        UserError: unless there is one budget, above 0, and for money a price.
    """
    if budget is not None and hours is not None:
        raise UserError("--budget (money) and --hours exclude each other: give one of them")
    for name, value in (("budget", budget), ("price", price), ("hours", hours)):
        if value is not None and not 0.0 < value < math.inf:
            raise UserError(f"--{name} {value:g} must be above 0")
    if hours is not None:
        if price is not None:
            raise UserError("--price works only with --budget: with --hours leave it out")
        cost = replace(plan.cost, price_per_hour=1.0, pilot_price_per_hour=0.0, currency="h")
        return replace(plan, cost=cost)
    if price is not None:
        plan = replace(plan, cost=replace(plan.cost, price_per_hour=price))
    if not plan.cost.price_per_hour:
        raise UserError("--budget needs a price: --price 2.5, or cost.price_per_hour in the plan")
    return plan


def designs(
    plan: Plan,
    job: Job,
    prior: Prior,
    *,
    sd: float,
    rates: float,
    timings: Timings,
    workers: int,
) -> list[Design]:
    """All designs, the most worth first.

    Args:
        plan: in hand, with a price of an hour.
        job: that is decided about.
        prior: of the log token ratio.
        sd: between pairs, in log tokens.
        rates: standard deviation that the choice of the rates adds, with the plan's tuning seeds.
        timings: by size and arm, from which prices are.
        workers: runs at a time.
    """
    simulated: dict[tuple[object, ...], _Simulated] = {}

    def weighed(variant: Variant) -> Design:
        error = error_of(variant.plan, plan, rates)
        shift = shift_of(variant.shorter, PER_DOUBLING)
        few = bool(variant.plan.comparison.ladder_seeds)
        key = (variant.axes[0], few and variant.axes[2], error, shift)
        if key not in simulated:
            simulated[key] = _simulate(variant.plan, job, prior, sd, error, shift)
        return _weighed(variant, simulated[key], without, timings, workers)

    without = without_pilot(job, prior)
    return sorted(map(weighed, variants(plan)), key=lambda design: -design.worth)


def affordable(found: Iterable[Design], budget: float) -> list[Design]:
    """Those that cannot cost more than the budget, at their most."""
    return [design for design in found if design.price[1] <= budget]


def beside(found: Iterable[Design], best: Design) -> list[Design]:
    """The designs that differ from the best in one of their axes only."""
    axes = best.variant.axes
    return [d for d in found if sum(map(operator.ne, d.variant.axes, axes)) == 1]


def _thetas(prior: Prior) -> Floats:
    return np.random.default_rng(0).normal(prior.mean, prior.sd, DRAWS)


@dataclass(frozen=True, slots=True)
class _Simulated:
    """Simulated pilots of one design; the gain is of the decision, the price not taken off."""

    course: Course
    no_go: float
    gain: float


def _simulate(
    plan: Plan, job: Job, prior: Prior, sd: float, rates: float, shift: float
) -> _Simulated:
    """Simulate pilots whose searches all come to their end.

    Args:
        plan: for its seeds and its rule.
        job: that is decided about.
        prior: of the log token ratio.
        sd: between pairs.
        rates: that the choice of rates adds; it is in the pilot's own interval, as is the error of
            a mean ladder.
        shift: between what the pilot measures and what is wanted; it is not.
    """
    theta, n = _thetas(prior), plan.most_pairs
    rng = np.random.default_rng(1)
    off = rng.normal(0.0, 1.0, DRAWS) * math.hypot(rates, shift)
    ladder = ladder_errors(plan, theta + off, sd)
    off = off + rng.normal(0.0, 1.0, DRAWS) * ladder
    pairs = (theta + off)[:, None] + rng.normal(0.0, sd, (DRAWS, n))
    verdict, used = verdicts(pairs, plan.decision, np.hypot(rates, ladder))
    go = verdict > 0
    return _Simulated(
        Course(float(used.mean()), float(go.mean()), float((used * go).mean())),
        float((verdict < 0).mean()),
        float(np.where(go, job.gain(theta), 0.0).mean()),
    )


def _weighed(
    variant: Variant, simulated: _Simulated, without: float, timings: Timings, workers: int
) -> Design:
    plan = variant.plan
    ends = searched(plan) ** 2  # of both arms
    course = finished(simulated.course, ends)
    average, most = money(plan, course, timings, workers)
    gain = simulated.gain * ends
    return Design(
        variant=variant,
        pairs=course.pairs,
        price=(average, most),
        go=course.go,
        no_go=simulated.no_go * ends,
        gain=gain,
        worth=gain - without - average,
    )

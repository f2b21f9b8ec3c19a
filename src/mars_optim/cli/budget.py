"""``mars plan --budget``: the design of the comparison that buys the most, or none."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from ..experiment.analysis.cost import production_job
from ..experiment.pilot.forecast import Forecast
from ..experiment.pilot.price import between, price
from ..experiment.pilot.worth import (
    Design,
    Job,
    Prior,
    affordable,
    designs,
    without_pilot,
)
from ..experiment.plan import Plan

RATES = 0.3
"""Noise between pairs that the choice of the rates adds, where no trials show it yet."""

SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A design, and what it is worth.

    Args:
        budget: of the pilot, in money or hours.
        currency: of all amounts; "h" for hours.
        prior: of the log token ratio.
        job: that is decided about.
        without: the best expected gain without a pilot.
        sd: noise between pairs that was assumed, and ``rates`` what the rates add.
        rates: see sd.
        designs: that the budget pays for at their most, the most worth first.
        cheapest: the least that any design costs at its most.
        cost: settings of the pilot that hold it to the budget.
    """

    budget: float
    currency: str
    prior: Prior
    job: Job
    without: float
    sd: float
    rates: float
    designs: tuple[Design, ...]
    cheapest: float
    cost: tuple[str, ...]

    @property
    def best(self) -> Design | None:
        """The design to carry out; None where no pilot pays."""
        return self.designs[0] if self.designs and self.designs[0].worth > 0 else None

    @property
    def options(self) -> str | None:
        """Options of ``mars pilot`` that carry out the best and spend no more; None without one."""
        held = "".join(f" --set {setting}" for setting in self.cost)
        return f"{self.best.options}{held}" if self.best else None


def weighed(plan: Plan, found: Forecast, budget: float, prior: Prior, workers: int) -> Choice:
    """Weigh all designs of a plan.

    Args:
        plan: with the price of an hour.
        found: its forecast, for times and noise.
        budget: in the plan's currency.
        prior: of the log token ratio.
        workers: runs at a time.

    Raises:
        UserError: where the noise between pairs is not known.
    """
    sd = found.noise.sd
    if sd is None:
        raise UserError(
            "--budget needs the noise between pairs, and the short runs learn too little to "
            "show it: finish two pairs in --out, or raise training.steps"
        )
    rates = RATES * sd if found.noise.rates is None else found.noise.rates
    candidate = found.probe[plan.comparison.candidate]
    job = Job(
        money=production_job(plan.job_cost).money,
        step_time=candidate["ratio"],
        min_saving=plan.decision.min_saving,
    )
    all_of_them = designs(
        plan,
        job,
        prior,
        sd=sd,
        rates=rates,
        price_of=lambda variant: price(variant, found.timings, workers=workers),
    )
    return Choice(
        budget=budget,
        currency=plan.cost.currency,
        prior=prior,
        job=job,
        without=without_pilot(job, prior),
        sd=sd,
        rates=rates,
        designs=tuple(affordable(all_of_them, budget)),
        cheapest=min(design.price[1] for design in all_of_them),
        cost=(
            f"cost.price_per_hour={plan.cost.price_per_hour:g}",
            f"cost.budget={budget:g}",
            *(("cost.currency=h",) if plan.cost.currency == "h" else ()),
        ),
    )


def as_data(choice: Choice) -> dict[str, Any]:
    """All numbers, for programs."""
    return {**dataclasses.asdict(choice), "options": choice.options}


def lines(choice: Choice) -> list[str]:
    """The best design for the budget, as text."""
    unit, prior, job = choice.currency, choice.prior, choice.job
    middle, low, high = (-math.expm1(-(prior.mean + k * prior.sd)) for k in (0.0, -1.96, 1.96))
    text = [
        (
            f"[bold]Budget {choice.budget:,.6g} {unit}[/] for a decision about a job of "
            f"{job.money:,.6g} {unit}; a switch is assumed to cost {job.min_saving:.0%} of it "
            "(decision.min_saving)."
        ),
        (
            f"  Assumed before the pilot: {middle:.0%} of the tokens saved ({low:.0%} to "
            f"{high:.0%}, 95 %); --prior-saving and --prior-sd change it. Without a pilot the "
            "best is "
        )
        + ("to stay" if not choice.without else f"to switch, worth {choice.without:,.3g} {unit}")
        + f". Noise between pairs {choice.sd:.3f}, of the rates {choice.rates:.3f}.",
    ]
    if not choice.designs:
        return [
            *text,
            (
                "  [bold]Do not pilot:[/] no design is sure to cost less than "
                f"{choice.budget:,.6g} {unit}; the cheapest may cost {choice.cheapest:,.3g} "
                f"{unit}. Shorter runs (training.steps), a smaller model, or fewer "
                "tuning.max_trials cost less."
            ),
        ]
    for design in choice.designs[:SHOWN]:
        up_to = "up to " if design.looks == "every-pair" else ""
        looks = " looked at one by one" if up_to else ""
        text.append(
            f"  {up_to}{len(design.seeds)} pairs{looks}: {design.pairs:.1f} run on average, "
            f"{between(*design.price, 2)} {unit}; go {design.go:.0%}, no-go {design.no_go:.0%}; "
            f"worth {design.worth:+,.3g} {unit} after its price"
        )
    if choice.best is None:
        return [*text, "  [bold]Do not pilot:[/] every design costs more than its decision gains."]
    return [*text, f"  [bold]Best:[/] mars pilot {choice.options}"]

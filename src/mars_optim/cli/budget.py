"""``mars plan --budget``: the design of the pilot that buys the most, or none."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from rich.markup import escape

from ..errors import UserError
from ..experiment.analysis.cost import production_job
from ..experiment.pilot.forecast import Forecast
from ..experiment.pilot.probing import unknown_steps
from ..experiment.pilot.worth import (
    PER_DOUBLING,
    Design,
    Job,
    Prior,
    affordable,
    beside,
    designs,
    without_pilot,
)
from ..experiment.plan import Plan
from ..experiment.plan.cost import CostPlan

RATES = 0.3
"""Noise between pairs that the choice of the rates adds, where no trials show it yet."""


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
        judged: the arms that the verdict is about.
        steps: of a run, in the plan in hand.
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
    judged: tuple[str, str]
    steps: int

    @property
    def best(self) -> Design | None:
        """The design to carry out; None where no pilot pays."""
        return self.designs[0] if self.designs and self.designs[0].worth > 0 else None

    @property
    def options(self) -> str | None:
        """Options of ``mars pilot`` that carry out the best and spend no more; None without one.

        They come after those that name the plan in hand.
        """
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
        UserError: where the noise between pairs or the candidate's step time is not known.
    """
    sd = found.noise.sd
    if sd is None:
        raise UserError(
            "--budget needs the noise between pairs, and the short runs learn too little to "
            "show it: finish two pairs in --out, or raise training.steps"
        )
    rates = RATES * sd if found.noise.rates is None else found.noise.rates
    candidate = found.probe[plan.comparison.candidate]
    if candidate["ratio"] is None:
        raise UserError(f"--budget needs the step time. {unknown_steps(found.probe)}")
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
        timings=found.timings,
        workers=workers,
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
            *(_in_hours(plan.cost) if plan.cost.currency == "h" else ()),
        ),
        judged=plan.comparison.judged,
        steps=plan.training.steps,
    )


def _in_hours(cost: CostPlan) -> tuple[str, ...]:
    """Settings that count a pilot's hours, whatever the plan says of money."""
    pilot = f"cost.pilot_price_per_hour={cost.pilot_price_per_hour:g}"
    return pilot, f"cost.currency={cost.currency}"


def as_data(choice: Choice) -> dict[str, Any]:
    """All numbers, for programs."""
    designs = tuple(map(_design_data, choice.designs))
    known = dataclasses.asdict(dataclasses.replace(choice, designs=()))
    return {**known, "designs": designs, "options": choice.options}


def _design_data(design: Design) -> dict[str, Any]:
    variant, plan = design.variant, design.variant.plan
    numbers = {f.name: getattr(design, f.name) for f in dataclasses.fields(design)}
    del numbers["variant"]
    return dict(
        settings=variant.settings,
        axes=variant.axes,
        seeds=plan.comparison.seeds,
        looks=plan.decision.looks,
        others=variant.others,
        ladder=plan.ladder,
        ladder_seeds=plan.comparison.ladder_seeds if plan.ladder else 0,
        max_trials=plan.tuning.max_trials,
        tuning_seeds=variant.tuning_seeds,
        steps=plan.training.steps,
        **numbers,
    )


def lines(choice: Choice, given: str = "") -> list[str]:
    """The best design for the budget, as text.

    Args:
        choice: that was weighed.
        given: options of ``mars pilot`` that name the plan in hand, as a shell takes them.
    """
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
            f"  [bold]Do not pilot:[/] no design is sure to cost less than "
            f"{choice.budget:,.6g} {unit}; "
            f"the cheapest may cost {choice.cheapest:,.3g} {unit}. Shorter runs "
            "(training.steps) or a smaller model cost less.",
        ]
    best = choice.designs[0]
    text.append(
        f"  Of {len(choice.designs):,} designs that cost at most {choice.budget:,.6g} {unit}, the "
        f"one worth the most (--designs compares it): {_told(best, choice)}."
    )
    text += [*_others(choice, best), *_shorter(choice, best)]
    if choice.best is None:
        return [*text, f"  [bold]Do not pilot:[/] {_why_not(choice)}"]
    command = " ".join(filter(None, ("mars pilot", given, choice.options)))
    return [*text, f"  [bold]Best:[/] {escape(command)}"]


def _why_not(choice: Choice) -> str:
    """Why no design pays: its price, or a go by tokens that the time of a step turns to a loss."""
    job = choice.job
    if job.step_time <= 1.0 or max(design.gain for design in choice.designs) >= 0.0:
        return "every design costs more than its decision gains."
    return (
        f"its decision loses money, whatever the pilot costs. A go is decided by tokens alone, "
        f"above {job.min_saving:.0%}, and a step takes {job.step_time:.2f} times as long: a "
        f"switch gains only where more than {job.pays_from:.1%} of the tokens are saved. Make "
        f"the step of {choice.judged[1]} faster."
    )


def _told(design: Design, choice: Choice) -> str:
    """A design in a sentence."""
    unit, (average, most) = choice.currency, design.price
    cells = dict(zip(HEAD, _cells(design), strict=True))
    return (
        f"{cells['pairs']} pairs, arms beside {' and '.join(choice.judged)}: "
        f"{cells['other arms']}, "
        f"ladder {cells['ladder']}, trials an arm {cells['trials']}, {cells['steps']} steps; "
        f"{design.pairs:.1f} pairs, {average:,.2f} {unit} on average and {most:,.2f} {unit} at the "
        f"most; go {design.go:.0%}, no-go {design.no_go:.0%}; worth {design.worth:+,.3g} {unit} "
        "after its price"
    )


def _others(choice: Choice, best: Design) -> list[str]:
    """Cost of the arms that the best design leaves out, in a line."""
    others = best.variant.others
    twins = [d for d in beside(choice.designs, best) if d.variant.others != others]
    if others != "none" or not twins:
        return []
    twin = max(twins, key=lambda design: design.worth)
    average, most = (a - b for a, b in zip(twin.price, best.price, strict=True))
    unit = choice.currency
    return [
        "  The control and other arms tell what a saving is due to, which is not in the worth: "
        f"with them ({twin.variant.others}) the pilot costs {average:,.2f} {unit} more on average, "
        f"{most:,.2f} {unit} at the most."
    ]


def _shorter(choice: Choice, best: Design) -> list[str]:
    steps = best.variant.plan.training.steps
    if steps == choice.steps:
        return []
    return [
        f"  Runs of {steps:,} steps in place of {choice.steps:,}: what they save is taken to "
        f"differ by {PER_DOUBLING:.2f} (sd, in log tokens) for each halving."
    ]


HEAD = ("pairs", "other arms", "ladder", "trials", "steps")
NUMBERS = ("run", "average", "most", "go", "no-go", "worth")


def _cells(design: Design) -> tuple[str, ...]:
    variant, plan = design.variant, design.variant.plan
    number, ladder_seeds = len(plan.comparison.seeds), plan.comparison.ladder_seeds
    few = f", {ladder_seeds} seeds" if ladder_seeds and plan.ladder else ""
    again = f", {variant.tuning_seeds} seeds" if variant.tuning_seeds > 1 else ""
    return (
        f"up to {number}" if plan.decision.looks == "every-pair" else str(number),
        variant.others,
        " ".join(f"{rung:g}" for rung in sorted((*plan.ladder, 1.0))) + few,
        f"up to {plan.tuning.max_trials}{again}",
        f"{plan.training.steps:,}",
    )


def table(choice: Choice) -> list[str]:
    """The best design, and those that differ from it in one thing, in columns."""
    if not choice.designs:
        return []
    best = choice.designs[0]
    rows: list[tuple[str, ...]] = [(*HEAD, *NUMBERS)]
    for design in (best, *beside(choice.designs, best)):
        average, most = (f"{value:,.2f}" for value in design.price)
        shares = (f"{design.go:.0%}", f"{design.no_go:.0%}", f"{design.worth:+,.3g}")
        rows.append((*_cells(design), f"{design.pairs:.1f}", average, most, *shares))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def line(row: tuple[str, ...]) -> str:
        texts = (text.rjust(width) for text, width in zip(row, widths, strict=True))
        return "  " + "  ".join(texts)

    unit = choice.currency
    return [
        f"[bold]The best design and those one change away[/] (prices and worth in {unit}):",
        *map(line, rows),
    ]

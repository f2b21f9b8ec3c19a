"""What a pilot will take, before anything is spent: runs, steps, hours, money."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..analysis.cost import pilot_price
from ..records import Plan
from ..records.plan import Size
from ..records.trials import AROUND
from .agenda import sensitivity_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """The runs of one arm in one stage at one size.

    Args:
        size: "main" for the plan's own.
        stage: "tune", "ladder", "compare" or "sensitivity".
        arm: name in the plan.
        runs: (least, most).
        steps: (least, most), of all these runs.
    """

    size: str
    stage: str
    arm: str
    runs: tuple[int, int]
    steps: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The whole pilot; each pair is (least, most): an arm is tuned until its best is bracketed.

    Args:
        items: by size, stage and arm.
        runs: in all.
        steps: in all.
        hours: by the clock, with all workers; None before a step was timed.
        money: at the plan's price; None without a price or hours.
    """

    items: tuple[Item, ...]
    runs: tuple[int, int]
    steps: tuple[int, int]
    hours: tuple[float, float] | None
    money: tuple[float, float] | None


def price(
    plan: Plan,
    seconds: Mapping[tuple[str, str], float] | None,
    *,
    workers: int,
    outside: Mapping[tuple[str, str], float] | None = None,
) -> Price:
    """Price a pilot.

    Args:
        plan: of the pilot.
        seconds: of one step, by (size, arm), as a probe measured them on this machine.
        workers: runs at a time; they are taken not to slow each other down.
        outside: seconds of a run besides its steps, likewise: its start, its evaluations.
    """
    items = tuple(i for size in plan.sizes() for i in _items(plan, size))
    items += tuple(_sensitivity(plan))
    hours = None
    if seconds is not None:
        around = outside or {}
        low, high = (
            sum(
                i.steps[end] * seconds[i.size, i.arm]
                + i.runs[end] * around.get((i.size, i.arm), 0.0)
                for i in items
            )
            / (3600 * workers)
            for end in (0, 1)
        )
        hours = (low, high)
    per_hour = pilot_price(plan.cost)
    return Price(
        items=items,
        runs=_total(i.runs for i in items),
        steps=_total(i.steps for i in items),
        hours=hours,
        money=(hours[0] * per_hour, hours[1] * per_hour) if hours and per_hour else None,
    )


def _items(plan: Plan, size: Size) -> list[Item]:
    seeds, repeated = len(plan.comparison.seeds), AROUND * len(plan.tuning.more_seeds)
    trials = (plan.tuning.trials + repeated, plan.tuning.max_trials + repeated)

    def item(stage: str, arm: str, runs: tuple[int, int], steps: int) -> Item:
        all_steps = (runs[0] * steps, runs[1] * steps)
        return Item(size=size.name, stage=stage, arm=arm, runs=runs, steps=all_steps)

    unit, ladder = size.steps(1.0), plan.comparison.ladder
    rungs = seeds * len(ladder)
    found = [item("tune", arm, trials, unit) for arm in size.arms]
    ladder_steps = seeds * sum(size.steps(budget) for budget in ladder)
    found.append(
        Item(
            size=size.name,
            stage="ladder",
            arm=plan.comparison.baseline,
            runs=(rungs, rungs),
            steps=(ladder_steps, ladder_steps),
        )
    )
    return found + [item("compare", arm, (seeds, seeds), unit) for arm in size.arms]


def _sensitivity(plan: Plan) -> list[Item]:
    """Of the arms' own lines, tuning may have made every run already."""
    if not plan.sensitivity.gammas:
        return []
    own, found = plan.sizes()[0], []
    factors, unit = len(plan.sensitivity.factors), own.steps(1.0)
    for arm, settings in sensitivity_lines(plan):
        runs = (0 if settings == plan.arm[arm] else factors, factors)
        steps = (runs[0] * unit, runs[1] * unit)
        found.append(Item(size=own.name, stage="sensitivity", arm=arm, runs=runs, steps=steps))
    return found


def _total(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    lows, highs = zip(*pairs, strict=True)
    return sum(lows), sum(highs)


def price_line(found: Price, currency: str) -> str:
    """The price in one line: "31 to 37 runs, 0.1 to 0.2 hours, 2 to 3 USD"."""
    parts = [f"{between(*found.runs, 0)} runs, {between(*found.steps, 0)} steps"]
    if found.hours:
        unit, scale = ("hours", 1.0) if found.hours[1] >= 2 else ("minutes", 60.0)
        low, high = (scale * value for value in found.hours)
        parts.append(f"about {between(low, high, 1)} {unit}")
    if found.money:
        parts.append(f"{between(*found.money, 2)} {currency}")
    return ", ".join(parts)


def between(low: float, high: float, digits: int) -> str:
    """``low`` to ``high``, or the one number that they are."""
    texts = [f"{value:,.{digits}f}" for value in (low, high)]
    return texts[0] if texts[0] == texts[1] else " to ".join(texts)

"""Price of a pilot before anything is spent: runs, steps, hours, money."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..analysis.cost import pilot_price
from ..plan import Plan
from ..plan.sizes import Size
from ..records import Run
from ..records.trials import AROUND
from .agenda import first_seeds, jobs_of_a_seed, sensitivity_lines
from .retries import Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """The runs of one arm in one purpose at one size.

    Args:
        size: "main" for the plan's own.
        purpose: "tune", "trunk", "ladder", "compare" or "sensitivity".
        arm: name in the plan.
        runs: (least, most).
        steps: (least, most), of all these runs; a branch's without those of its trunk.
    """

    size: str
    purpose: str
    arm: str
    runs: tuple[int, int]
    steps: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The whole pilot; each pair is (least, most): an arm is tuned until its best is bracketed.

    Args:
        items: by size, purpose and arm.
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


Timings = Mapping[tuple[str, str], Timing]
"""By (size, arm), as a probe measured them on this machine."""


def price(plan: Plan, timings: Timings | None, *, workers: int) -> Price:
    """Price a pilot.

    Args:
        plan: of the pilot.
        timings: None before there are any, for runs and steps only.
        workers: runs at a time; they are taken not to slow each other down.
    """
    return _priced(plan, _all_items(plan), timings, workers)


def remaining(plan: Plan, done: Iterable[Run], timings: Timings | None, *, workers: int) -> Price:
    """Price what is left of a pilot, some of whose runs have finished.

    Args:
        plan: of the pilot, perhaps with seeds that were added.
        done: its finished runs.
        timings: as in :func:`price`.
        workers: likewise.
    """
    made: dict[tuple[str, str, str], list[int]] = {}
    again, compared = Counter[tuple[str, str]](), set()

    def group(size: str, arm: str) -> tuple[str, bool]:
        return size, bool(plan.comparison.at_first([arm]))  # others are tuned after the verdict

    for run in done:
        spec, size = run.spec, plan.size_of(run.spec)
        if size is None or not run.outcome:
            continue
        made.setdefault((size.name, spec.purpose, spec.arm_name), []).append(spec.work)
        if spec.purpose != "tune":
            compared.add(group(size.name, spec.arm_name))  # so its search is over
        elif spec.seed != plan.tuning.seed:
            again[size.name, spec.arm_name] += 1
    repeats = AROUND * len(plan.tuning.more_seeds)

    def left(item: Item) -> Item:
        if item.purpose == "tune" and group(item.size, item.arm) in compared:
            missing = repeats - again[item.size, item.arm]
            runs, each = (0, max(0, missing)), item.steps[1] // item.runs[1]
            return replace(item, runs=runs, steps=(0, each * runs[1]))
        mine = made.get((item.size, item.purpose, item.arm), [])
        taken = [mine.pop(0) for _ in range(min(len(mine), item.runs[1]))]
        low, high = (max(0, n - len(taken)) for n in item.runs)
        fewest, most = (max(0, n - sum(taken)) for n in item.steps)
        return replace(item, runs=(low, high), steps=(fewest, most))

    items = _all_items(plan)
    order = sorted(range(len(items)), key=lambda i: -items[i].runs[0])  # surest runs were made
    found = {i: left(items[i]) for i in order}
    return _priced(plan, tuple(found[i] for i in sorted(found)), timings, workers)


def _all_items(plan: Plan) -> tuple[Item, ...]:
    items = tuple(i for size in plan.sizes() for i in _items(plan, size))
    return items + tuple(_sensitivity(plan))


def _priced(plan: Plan, items: tuple[Item, ...], timings: Timings | None, workers: int) -> Price:
    hours = None
    if timings is not None:
        timed = [(item, timings[item.size, item.arm]) for item in items]
        low, high = (
            sum(i.steps[end] * t.step + i.runs[end] * t.outside for i, t in timed)
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
    repeated = AROUND * len(plan.tuning.more_seeds)
    most = plan.tuning.trials if plan.tuning.by_design else plan.tuning.max_trials
    trials = (plan.tuning.trials + repeated, most + repeated)

    def item(purpose: str, arm: str, low: Sequence[int], high: Sequence[int]) -> Item:
        """``low`` and ``high``: steps of each run at the least and at the most."""
        runs, steps = (len(low), len(high)), (sum(low), sum(high))
        return Item(size=size.name, purpose=purpose, arm=arm, runs=runs, steps=steps)

    low, high = (
        _compared(plan, size, seeds) for seeds in (first_seeds(plan), plan.comparison.seeds)
    )
    unit = [size.steps(1.0)]
    found = [item("tune", arm, trials[0] * unit, trials[1] * unit) for arm in size.arms]
    if plan.comparison.rungs == "as-read":  # on one side at the least
        low = {key: _one_side(steps, unit[0]) for key, steps in low.items()}
    found += [item(*key, low[key], high[key]) for key in high]
    first = plan.comparison.at_first(size.arms)
    return [i if i.arm in first else _perhaps(i) for i in found]


def _compared(plan: Plan, size: Size, seeds: Iterable[int]) -> dict[tuple[str, str], list[int]]:
    """Steps of the runs that these seeds take, by purpose and arm."""
    found: dict[tuple[str, str], list[int]] = {}
    for seed in seeds:
        for job in jobs_of_a_seed(plan, size, size.arms, seed):
            found.setdefault((job.purpose, job.arm), []).append(job.work)
    return found


def _one_side(steps: list[int], unit: int) -> list[int]:
    """The runs of a purpose without its rungs on the dearer side of the common budget."""
    sides = [[n for n in steps if n <= unit], [n for n in steps if n >= unit]]
    return min(filter(None, sides), key=lambda side: (len(side), sum(side)))


def _perhaps(item: Item) -> Item:
    """An item that may not be run at all."""
    return replace(item, runs=(0, item.runs[1]), steps=(0, item.steps[1]))


def _sensitivity(plan: Plan) -> list[Item]:
    """Runs of the sensitivity; tuning may have made all those of the arms' own lines already."""
    if not plan.sensitivity.gammas:
        return []
    own, found = plan.sizes()[0], []
    factors, unit = len(plan.sensitivity.factors), own.steps(1.0)
    for arm, settings in sensitivity_lines(plan):
        runs = (0 if settings == plan.arm[arm] else factors, factors)
        steps = (runs[0] * unit, runs[1] * unit)
        found.append(Item(size=own.name, purpose="sensitivity", arm=arm, runs=runs, steps=steps))
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

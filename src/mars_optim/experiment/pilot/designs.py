"""Variations of a plan that ``mars plan --budget`` weighs, and the average price of each.

A variation is what ``--set`` makes of the plan, by the same code, so it is one that the program can
run. The average price of a pilot with pairs n (the average of its simulation), of which n_go (0
without a go) follow a go, is

    tuning of the arms that the verdict is about, by the trials that searches take on average
    + n pairs of these arms
    + P(go) the tuning of the others + n_go of their pairs, where they wait for a go
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product

from ...errors import UserError
from ..analysis.cost import pilot_price
from ..plan import Plan
from ..plan.comparison import LEAST_LADDERS
from ..plan.plan_file import make_plan
from ..plan.written import plain, toml_value
from ..records.trials import AROUND
from .agenda import first_seeds
from .price import Item, Timings, price

PAIRS = (3, 4, 5, 6, 8, 10, 15, 20)
"""Fixed numbers of pairs, looked at once."""
MOST = (6, 8, 10, 20)
"""The most pairs, looked at one by one."""
SHORT_LADDER = (0.5, 1.5)
FEW_TRIALS = 8
MORE_SEEDS = 2
"""Tuning seeds that are added at the most."""
SHORTER = 0.5

NEEDED = (
    *(1.0, 1.0, 1.0, 1.0, 0.480, 0.217, 0.116, 0.051),
    *(0.024, 0.015, 0.007, 0.002, 0.0),
)
"""Share of searches for a rate that go on after 1, 2, ... trials, of 585 simulated ones (`python -m
benchmarks.trials_needed`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A plan, and how it is told.

    Args:
        plan: to be run.
        settings: that make it out of the plan in hand, ``key=value`` each.
        others: the arms that the verdict is not about: "always", "after-go", or "none".
        shorter: its steps over those of the plan in hand.
    """

    plan: Plan
    settings: tuple[str, ...]
    others: str
    shorter: float

    @property
    def tuning_seeds(self) -> int:
        """Seeds that the trials around the best rate of an arm are run on."""
        return 1 + len(self.plan.tuning.more_seeds)

    @property
    def axes(self) -> tuple[object, ...]:
        """Pairs, arms, ladder, trials and steps: what two variants may differ in."""
        plan = self.plan
        return (
            (len(plan.comparison.seeds), plan.decision.looks),
            self.others,
            (plan.ladder, plan.comparison.ladder_seeds),
            (plan.tuning.max_trials, len(plan.tuning.more_seeds)),
            plan.training.steps,
        )


def variants(plan: Plan) -> list[Variant]:
    """The plan with other pairs, arms, ladders, trials and steps, each with each."""
    data, found = plain(plan), list[Variant]()
    choices = product(_arms(plan), _ladders(plan), _trials(plan), _steps(plan))
    for (others, arms), ladder, (taken, trials), (shorter, steps) in choices:
        for pairs in _pairs(plan, taken):
            settings = (*pairs, *arms, *ladder, *trials, *steps)
            try:
                made = make_plan(data, settings)
            except UserError:  # no plan, so no design
                continue
            found.append(Variant(plan=made, settings=settings, others=others, shorter=shorter))
    return found


def _pairs(plan: Plan, taken: Iterable[int]) -> Iterator[tuple[str, ...]]:
    used = {plan.tuning.seed, *taken}
    most = max(*PAIRS, *MOST)
    free = [seed for seed in range(1, most + len(used) + 1) if seed not in used]
    for looks, numbers in (("once", PAIRS), ("every-pair", MOST)):
        for number in numbers:
            listed = ",".join(map(str, free[:number]))
            yield f"comparison.seeds=[{listed}]", f"decision.looks={looks}"


def _arms(plan: Plan) -> list[tuple[str, tuple[str, ...]]]:
    judged = [arm for arm in plan.arms if arm in plan.comparison.judged]
    if len(judged) == len(plan.arms):
        return [("none", ())]
    found: list[tuple[str, tuple[str, ...]]] = [(plan.comparison.others, ())]
    if plan.comparison.others == "always":
        found.append(("after-go", ("comparison.others=after-go",)))
    ablations = ("comparison.ablations=false",) if plan.comparison.ablations else ()
    return [*found, ("none", (f"arms={toml_value(judged)}", *ablations))]


def _ladders(plan: Plan) -> list[tuple[str, ...]]:
    """Fewer rungs, and rungs of fewer seeds: each with each."""
    found: list[tuple[str, ...]] = [()]
    if len(plan.ladder) > len(SHORT_LADDER):
        found.append((f"comparison.ladder={toml_value(list(SHORT_LADDER))}",))
    if plan.ladder and not plan.comparison.ladder_seeds and not plan.training.trunk:
        found += [(*rungs, f"comparison.ladder_seeds={LEAST_LADDERS}") for rungs in found]
    return found


def _trials(plan: Plan) -> list[tuple[tuple[int, ...], tuple[str, ...]]]:
    """Tuning seeds beside the first, and the settings."""
    own = plan.tuning.more_seeds
    if plan.tuning.by_design:
        return [(own, ())]
    found: list[tuple[tuple[int, ...], tuple[str, ...]]] = [(own, ())]
    if plan.tuning.trials <= FEW_TRIALS < plan.tuning.max_trials:
        found.append((own, (f"tuning.max_trials={FEW_TRIALS}",)))
    first = 1001  # far from the seeds of pairs
    for number in range(len(own) + 1, MORE_SEEDS + 1):
        more = (*own, *range(first, first + number - len(own)))
        found.append((more, (f"tuning.more_seeds={toml_value(list(more))}",)))
    return found


def _steps(plan: Plan) -> list[tuple[float, tuple[str, ...]]]:
    """Shorter runs, where their length is the plan's own affair."""
    found: list[tuple[float, tuple[str, ...]]] = [(1.0, ())]
    fixed = plan.scale or plan.decision.target is not None or plan.task.kind == "imported"
    if not fixed:
        steps = max(1, round(SHORTER * plan.training.steps))
        found.append((steps / plan.training.steps, (f"training.steps={steps}",)))
    return found


def searched(plan: Plan) -> float:
    """Chance that the search of one arm's rate ends before the plan's most trials cut it off."""
    most = plan.tuning.max_trials
    return 1.0 if plan.tuning.by_design or most > len(NEEDED) else 1.0 - NEEDED[most - 1]


def average_trials(plan: Plan) -> float:
    """Trials of one arm on average, those on further tuning seeds included."""
    again = AROUND * len(plan.tuning.more_seeds)
    if plan.tuning.by_design:
        return plan.tuning.trials + again
    most = plan.tuning.max_trials
    searching = 1.0 + sum(NEEDED[: most - 1])
    return min(max(searching, plan.tuning.trials), most) + again


@dataclass(frozen=True, slots=True)
class Course:
    """How simulated pilots went, on average.

    Args:
        pairs: that were run.
        go: share that ended as go.
        pairs_go: pairs of those that did, and 0 of the others.
    """

    pairs: float
    go: float
    pairs_go: float


def money(plan: Plan, course: Course, timings: Timings, workers: int) -> tuple[float, float]:
    """Price of a pilot: on average, and at the most.

    Args:
        plan: with a price of an hour.
        course: of its simulation.
        timings: by size and arm.
        workers: runs at a time.
    """
    per_second = pilot_price(plan.cost) / (3600 * workers)
    found = price(plan, timings, workers=workers)

    def cost(item: Item, end: int) -> float:
        time = timings[item.size, item.arm]
        return (item.steps[end] * time.step + item.runs[end] * time.outside) * per_second

    average = sum(_average(plan, i, cost(i, 0), cost(i, 1), course) for i in found.items)
    most = sum(cost(item, 1) for item in found.items)
    return min(average, most), most


def _average(plan: Plan, item: Item, least: float, most: float, course: Course) -> float:
    """Average price of the runs of one arm in one purpose."""
    waits = not plan.comparison.at_first([item.arm])
    if item.purpose == "sensitivity":
        return (least + most) / 2
    if item.purpose == "tune":
        share = average_trials(plan) / item.runs[1] if item.runs[1] else 0.0
        return most * min(share, 1.0) * (course.go if waits else 1.0)
    if item.purpose == "ladder" and plan.comparison.rungs == "as-read":
        return (least + most) / 2
    seeds, first = len(plan.comparison.seeds), len(first_seeds(plan))
    if waits:
        return most * (course.pairs_go - course.go * plan.trials_pair) / seeds
    if seeds == first:
        return most
    return least + (most - least) * (course.pairs - plan.trials_pair - first) / (seeds - first)


def finished(course: Course, share: float) -> Course:
    """The course where only so many pilots come to a verdict; the others run their pairs too."""
    return replace(course, go=course.go * share, pairs_go=course.pairs_go * share)


def error_of(plan: Plan, base: Plan, rates: float) -> float:
    """Error from the choice of rates: the regret of a fit falls with 1 over the seeds behind
    it."""
    seeds, before = (1 + len(p.tuning.more_seeds) for p in (plan, base))
    return rates * before / seeds


def shift_of(shorter: float, per_doubling: float) -> float:
    """Standard deviation of what shorter runs say of the plan's own, in log tokens."""
    return per_doubling * math.sqrt(max(0.0, -math.log2(shorter)))

"""Looks at every pair of whole pilots that are judged by the tokens to a target.

``python -m benchmarks.looks_at_targets`` prints the table of docs/statistics.md. Worlds are those
of :mod:`.simulated_pilots`, their nats turned into log tokens: a rate that is off makes all of an
arm's accuracies late. Every pilot searches its rates, compares pairs and is read as ``mars pilot``
does; runs that miss the target are censored.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from benchmarks.decision import LEAST, shares
from benchmarks.simulated_pilots import KINDS, SHAPES, World, judge, made_by, plan_of, worlds
from benchmarks.simulated_target_tuning import EVALUATIONS, LATE, curve, luck_of
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.decision import DecisionPlan
from mars_optim.experiment.plan.task import ImagesPlan
from mars_optim.experiment.records import Run
from mars_optim.experiment.records.metric import judged

SAVINGS = (-0.10, 0.0, LEAST, 0.20, 0.40)
TARGETS = {"all reach it": -0.7, "a third miss it": -0.05, "half miss it": 0.0}
"""Log share of a run's length at which a baseline at its best rate reaches the target."""

Looks = Literal["once", "every-pair"]
DESIGNS: tuple[tuple[int, Looks], ...] = ((5, "once"), (8, "every-pair"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One pilot: whether it was told anything, what it said and what it took."""

    told: bool
    decision: str
    held: bool
    pairs: int


@dataclass(slots=True)
class Curves:
    """A world's runs of one pilot; the same run has the same curve whenever it is asked for."""

    world: World
    plan: Plan
    seed: int

    def __call__(self, spec: RunSpec) -> Run:
        """A whole run."""
        is_candidate = spec.arm_name == self.plan.comparison.candidate
        octaves = math.log2(spec.lr / spec.arm.lr) - self.world.optimum[is_candidate]
        height = self.world.height(octaves)
        late = None
        if height is not None:
            luck = luck_of(self.seed, spec, self.world.noise)
            late = LATE * height - self.world.effect * is_candidate + luck
        return judged(curve(spec, late), self.plan.decision)


def target_plan(place: float, pairs: int, looks: Looks) -> Plan:
    """The default pilot with two arms, judged by its way to an accuracy."""
    plan = plan_of(pairs)
    return replace(
        plan,
        task=ImagesPlan(corpus="pictures"),
        training=replace(plan.training, evaluations=EVALUATIONS),
        decision=DecisionPlan(
            metric="accuracy", direction="up", target=0.6 + 0.2 * place, looks=looks
        ),
        comparison=replace(plan.comparison, ladder=()),
    )


def pilot(plan: Plan, world: World, seed: int) -> Told:
    """Carry out one pilot and judge it."""
    runs = made_by(plan, Curves(world, plan, seed))
    _, candidate, verdict = judge(plan, runs)
    found = candidate.log_ratio
    told = found is not None and verdict.trusted and math.isfinite(found.low)
    held = told and found is not None and found.low <= world.effect <= found.high
    bounds = candidate.bounds  # the side that is known must hold
    if told and found is not None and bounds:
        held = found.low <= world.effect if "at least" in bounds else world.effect <= found.high
    return Told(
        told=told,
        decision=verdict.decision,
        held=held,
        pairs=len({r.spec.seed for r in runs if r.spec.purpose == "compare"}),
    )


def _several(job: tuple[Plan, Sequence[World], int]) -> list[Told]:
    plan, drawn, first = job
    return [pilot(plan, world, first + i) for i, world in enumerate(drawn)]


def row(found: Sequence[Told], saving: float) -> str:
    """Cells of the table."""
    told = [one for one in found if one.told]
    held = f"{fmean(one.held for one in told):.1%}" if told else "-"
    _, go, no_go, wrong = shares(found, saving)
    pairs = f"{fmean(one.pairs for one in found):.2f}"
    return " | ".join((f"{len(told)} of {len(found)}", held, go, no_go, wrong, pairs))


HEAD = (
    "| saving | target | design | told | holds | go | no-go | wrong | pairs |\n" + "|---" * 9 + "|"
)


def main() -> None:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--pilots", type=int, default=200, help="of each saving and target")
    parser.add_argument("--savings", type=float, nargs="*", default=list(SAVINGS))
    parser.add_argument("--targets", nargs="*", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--draw", default="targets", help="another text draws other worlds")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    each = math.ceil(args.pilots / len(KINDS))
    print(HEAD)
    with ProcessPoolExecutor(args.workers) as pool:
        for saving in args.savings:
            drawn = [w for k in KINDS for w in worlds(k, saving, each, SHAPES, args.draw)]
            for name in args.targets:
                for pairs, looks in DESIGNS:
                    plan = target_plan(TARGETS[name], pairs, looks)
                    jobs = [(plan, drawn[i : i + 20], i) for i in range(0, len(drawn), 20)]
                    found = [one for part in pool.map(_several, jobs) for one in part]
                    design = f"{pairs} pairs" if looks == "once" else f"every pair to {pairs}"
                    print(
                        f"| {saving:.0%} | {name} | {design} | {row(found, saving)} |", flush=True
                    )


if __name__ == "__main__":
    main()

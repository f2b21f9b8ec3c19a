"""Cost of a decision: designs of the comparison on the same simulated worlds, whole pilots
each.

``python -m benchmarks.decision`` prints the table of docs/statistics.md. A design is a number of
pairs that is fixed before, or a look at every pair up to a most. Of each: how often it says go and
no-go, how often its interval holds the truth at the moment it stops, and what it spent.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Protocol

from benchmarks.simulated_pilots import (
    KINDS,
    SHAPES,
    STEPS,
    Losses,
    World,
    carry_out,
    judge,
    plan_of,
    worlds,
)
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.decision import DecisionPlan
from mars_optim.experiment.records import Run

SAVINGS = (-0.10, 0.0, 0.05, 0.10, 0.20)
LEAST = DecisionPlan().min_saving


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """One pilot.

    Args:
        decision: of its verdict.
        width: half of its interval.
        error: of its mean.
        held: whether its interval holds the truth.
        pairs: compared.
        budgets: of the comparison, without tuning.
        decided: budgets of all that the verdict rests on, with tuning.
        whole: budgets of all runs.
    """

    decision: str
    width: float
    error: float
    held: bool
    pairs: int
    budgets: float
    decided: float
    whole: float


def designs(fixed: Iterable[int], most: int) -> dict[str, Plan]:
    """The plans that are compared, by name."""
    every = replace(plan_of(most), decision=DecisionPlan(looks="every-pair"))
    return {f"{n} pairs": plan_of(n) for n in fixed} | {f"every pair to {most}": every}


def spend(plan: Plan, world: World, seed: int) -> Spent:
    """Carry out one pilot."""
    runs = carry_out(plan, Losses(world, plan, seed))
    _, candidate, verdict = judge(plan, runs)
    found = candidate.log_ratio
    assert found is not None
    return Spent(
        decision=verdict.decision,
        width=(found.high - found.low) / 2,
        error=found.mean - world.effect,
        held=found.low <= world.effect <= found.high,
        pairs=len({r.spec.seed for r in runs if r.spec.purpose == "compare"}),
        budgets=_budgets(r for r in runs if r.spec.purpose != "tune"),
        decided=_budgets(r for r in runs if r.spec.arm_name in plan.comparison.at_first(plan.arms)),
        whole=_budgets(runs),
    )


def _budgets(runs: Iterable[Run]) -> float:
    return sum(run.spec.work for run in runs) / STEPS


def carried(
    pool: ProcessPoolExecutor, plan: Plan, drawn: Sequence[World], part: int = 20
) -> list[Spent]:
    """One pilot in each world, ``part`` of them a job."""
    jobs = [(plan, drawn[i : i + part], i) for i in range(0, len(drawn), part)]
    return [spent for found in pool.map(_several, jobs) for spent in found]


def _several(job: tuple[Plan, Sequence[World], int]) -> list[Spent]:
    plan, drawn, first = job
    return [spend(plan, world, first + i) for i, world in enumerate(drawn)]


class Decided(Protocol):
    """The words of one pilot."""

    @property
    def held(self) -> bool:
        """Whether its interval holds the truth."""

    @property
    def decision(self) -> str:
        """The verdict."""


def shares(found: Sequence[Decided], saving: float) -> list[str]:
    """Cells in per cent with their standard errors: held, go, no-go, and decided against the
    truth.
    """

    def share(hits: Iterable[bool]) -> str:
        p = sum(hits) / len(found)
        return f"{100 * p:.1f} ± {100 * math.sqrt(p * (1 - p) / len(found)):.1f}"

    wrong = "go" if saving <= LEAST else "no-go"
    return [
        share(s.held for s in found),
        share(s.decision == "go" for s in found),
        share(s.decision == "no-go" for s in found),
        share(s.decision == wrong for s in found),
    ]


def row(found: Sequence[Spent], saving: float) -> str:
    """Cells of the table."""
    pairs, budgets = fmean(s.pairs for s in found), fmean(s.budgets for s in found)
    return " | ".join((*shares(found, saving), f"{pairs:.2f}", f"{budgets:.1f}"))


def main() -> None:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--pilots", type=int, default=800, help="of each saving")
    parser.add_argument("--fixed", type=int, nargs="*", default=[5])
    parser.add_argument("--most", type=int, default=10, help="pairs of a look at every pair")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--savings", type=float, nargs="*", default=list(SAVINGS))
    parser.add_argument("--draw", default="decision", help="another text draws other worlds")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    each = math.ceil(args.pilots / len(args.kinds))
    print("| saving | design | holds | go | no-go | wrong | pairs | budgets compared |")
    print("|---" * 8 + "|")
    with ProcessPoolExecutor(args.workers) as pool:
        for saving in args.savings:
            drawn = [w for k in args.kinds for w in worlds(k, saving, each, SHAPES, args.draw)]
            for name, plan in designs(args.fixed, args.most).items():
                found = carried(pool, plan, drawn)
                print(f"| {saving:.0%} | {name} | {row(found, saving)} |", flush=True)


if __name__ == "__main__":
    main()

"""The default pilot beside other designs, on the same worlds: what it spends, how often it errs.

``python -m benchmarks.default_design`` prints the table of docs/statistics.md. Whole pilots of
three arms: agenda, search, fit, ladders, looks and rule. Best rates move with the number of steps,
of each arm by another exponent, as they do. The control has the baseline's losses but its own
noise.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

from benchmarks.simulated_pilots import (
    KINDS,
    SHAPES,
    STEPS,
    Losses,
    World,
    carry_out,
    judge,
    worlds,
)
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.plan_file import BUILT_IN, make_plan

SAVINGS = (-0.10, 0.0, 0.05, 0.10, 0.20)
DRIFT, OWN, COMMON = -0.16, 0.14, 0.14
"""Octaves for twice the steps: the mean, and the deviations of an arm and of both together."""
SHARED = 0.5


def designs() -> dict[str, Plan]:
    """The plans that are compared, by name."""
    steps = {"training": {"steps": STEPS}}
    before, default = make_plan(steps), make_plan({**BUILT_IN, **steps})

    ladder = before.comparison.ladder
    return {
        "before: 5 pairs": before,
        "default, longer ladder": replace(
            default, comparison=replace(default.comparison, ladder=ladder)
        ),
        "default": default,
    }


def drifting(drawn: Iterable[World], draw: str) -> list[World]:
    """The worlds, with best rates that move with the steps."""
    rng = random.Random(f"drift {draw}")
    found = []
    for world in drawn:
        common = DRIFT + rng.gauss(0.0, COMMON)
        drift = (common + rng.gauss(0.0, OWN), common + rng.gauss(0.0, OWN))
        found.append(replace(world, drift=drift, shared=SHARED))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One pilot: its decision, whether its interval holds the truth, and what it took."""

    decision: str
    held: bool
    error: float
    width: float
    pairs: int
    until: float
    budgets: float


def tell(plan: Plan, world: World, seed: int) -> Told:
    """Carry out one pilot."""
    runs = carry_out(plan, Losses(world, plan, seed))
    _, candidate, verdict = judge(plan, runs)
    found = candidate.log_ratio
    assert found is not None
    judged = [r for r in runs if r.spec.arm_name in plan.comparison.judged]
    counted = runs if plan.comparison.others == "always" else judged
    return Told(
        decision=verdict.decision,
        held=found.low <= world.effect <= found.high,
        error=found.mean - world.effect,
        width=(found.high - found.low) / 2,
        pairs=len({r.spec.seed for r in runs if r.spec.purpose == "compare"}),
        until=sum(r.spec.work for r in counted) / STEPS,
        budgets=sum(r.spec.work for r in runs) / STEPS,
    )


def row(found: Sequence[Told], saving: float, least: float) -> str:
    """Cells: shares in per cent with their standard errors, then means."""

    def share(hits: Iterable[bool]) -> str:
        p = sum(hits) / len(found)
        return f"{100 * p:.1f} ± {100 * math.sqrt(p * (1 - p) / len(found)):.1f}"

    def mean(values: Iterable[float], digits: int) -> str:
        return f"{sum(values) / len(found):.{digits}f}"

    wrong = "go" if saving <= least else "no-go"
    return " | ".join(
        (
            share(t.held for t in found),
            share(t.decision == "go" for t in found),
            share(t.decision == "no-go" for t in found),
            share(t.decision == wrong for t in found),
            mean((t.pairs for t in found), 2),
            mean((t.until for t in found), 1),
            mean((t.budgets for t in found), 1),
            mean((t.error for t in found), 4),
            mean((t.width for t in found), 3),
        )
    )


HEAD = (
    "| saving | design | holds | go | no-go | wrong | pairs | budgets to the decision | in all "
    "| bias | half width |\n" + "|---" * 11 + "|"
)


def _several(job: tuple[Plan, list[World], int]) -> list[Told]:
    plan, drawn, first = job
    return [tell(plan, world, first + i) for i, world in enumerate(drawn)]


def main() -> None:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--pilots", type=int, default=200, help="of each saving and design")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--savings", type=float, nargs="*", default=list(SAVINGS))
    parser.add_argument("--designs", nargs="*", default=list(designs()))
    parser.add_argument("--draw", default="default", help="another text draws other worlds")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    each = math.ceil(args.pilots / len(args.kinds))
    print(HEAD)
    with ProcessPoolExecutor(args.workers) as pool:
        for saving in args.savings:
            drawn = [w for k in args.kinds for w in worlds(k, saving, each, SHAPES, args.draw)]
            drawn = drifting(drawn, args.draw)
            for name in args.designs:
                plan = designs()[name]
                jobs = [(plan, drawn[i : i + 20], i) for i in range(0, len(drawn), 20)]
                found = [t for part in pool.map(_several, jobs) for t in part]
                cells = row(found, saving, plan.decision.min_saving)
                print(f"| {saving:.0%} | {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()

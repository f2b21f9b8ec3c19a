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
from dataclasses import replace
from statistics import fmean

from benchmarks.decision import SAVINGS, Spent, carried, shares
from benchmarks.simulated_pilots import BEND, KINDS, SHAPES, STEPS, World, worlds
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.plan_file import BUILT_IN, make_plan

DRIFT, OWN, COMMON = -0.16, 0.14, 0.14
"""Octaves for twice the steps: the mean, and the deviations of an arm and of both together."""


def designs() -> dict[str, Plan]:
    """The plans that are compared, by name."""
    steps = {"training": {"steps": STEPS}}
    before, default = make_plan(steps), make_plan({**BUILT_IN, **steps})

    two = replace(default.comparison, ladder_seeds=2, rungs="always", trials_pair=False)
    return {
        "before: 5 pairs": before,
        "two whole ladders, no pair of trials": replace(default, comparison=two),
        "default": default,
    }


def drifting(drawn: Iterable[World], draw: str, **changes: float) -> list[World]:
    """The worlds, with best rates that move with the steps, and other changes."""
    rng = random.Random(f"drift {draw}")
    found = []
    for world in drawn:
        common = DRIFT + rng.gauss(0.0, COMMON)
        drift = (common + rng.gauss(0.0, OWN), common + rng.gauss(0.0, OWN))
        found.append(replace(world, drift=drift, **changes))  # type: ignore[arg-type]
    return found


def row(found: Sequence[Spent], saving: float) -> str:
    """Cells of the table."""
    means = (
        f"{fmean(s.pairs for s in found):.2f}",
        f"{fmean(s.decided for s in found):.1f}",
        f"{fmean(s.whole for s in found):.1f}",
        f"{fmean(s.error for s in found):.4f}",
        f"{fmean(s.width for s in found):.3f}",
    )
    return " | ".join((*shares(found, saving), *means))


HEAD = (
    "| saving | design | holds | go | no-go | wrong | pairs | budgets to the decision | in all "
    "| bias | half width |\n" + "|---" * 11 + "|"
)


def main() -> None:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--pilots", type=int, default=200, help="of each saving and design")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--savings", type=float, nargs="*", default=list(SAVINGS))
    parser.add_argument("--designs", nargs="*", default=list(designs()))
    parser.add_argument("--draw", default="default", help="another text draws other worlds")
    parser.add_argument("--bend", type=float, default=BEND, help="exponent of tokens in the loss")
    parser.add_argument(
        "--shared",
        type=float,
        default=0.0,
        help="share of a run's noise variance that all runs of its arm and seed have in common",
    )
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    each = math.ceil(args.pilots / len(args.kinds))
    print(HEAD)
    with ProcessPoolExecutor(args.workers) as pool:
        for saving in args.savings:
            drawn = [w for k in args.kinds for w in worlds(k, saving, each, SHAPES, args.draw)]
            drawn = drifting(drawn, args.draw, bend=args.bend, of_arm=args.shared)
            for name in args.designs:
                found = carried(pool, designs()[name], drawn)
                print(f"| {saving:.0%} | {name} | {row(found, saving)} |", flush=True)


if __name__ == "__main__":
    main()

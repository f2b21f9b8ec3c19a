"""How many trials the search for a rate takes: the table ``NEEDED`` of ``mars plan --budget``.

``python -m benchmarks.trials_needed`` carries out the search of whole pilots in the worlds of
:mod:`benchmarks.simulated_pilots` and prints the share of searches that go on after k trials.
"""

from __future__ import annotations

import argparse
from collections import Counter

from benchmarks.decision import SAVINGS
from benchmarks.default_design import drifting
from benchmarks.simulated_pilots import KINDS, SHAPES, STEPS, Losses, carry_out, worlds
from mars_optim.experiment.plan.plan_file import BUILT_IN, make_plan


def trials(each: int, draw: str) -> list[int]:
    """Trials of every arm's search, in every world."""
    plan = make_plan({**BUILT_IN, "training": {"steps": STEPS}})
    found: list[int] = []
    for saving in SAVINGS:
        drawn = [w for kind in KINDS for w in worlds(kind, saving, each, SHAPES, draw)]
        for seed, world in enumerate(drifting(drawn, draw)):
            runs = carry_out(plan, Losses(world, plan, seed))
            found += Counter(r.spec.arm_name for r in runs if r.spec.purpose == "tune").values()
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--each", type=int, default=10, help="worlds of each saving and kind")
    parser.add_argument("--draw", default="trials", help="another text draws other worlds")
    args = parser.parse_args()
    found = trials(args.each, args.draw)
    print(f"{len(found)} searches, {sum(found) / len(found):.2f} trials on average")
    for k in range(1, max(found) + 1):
        print(f"{k:3d} {sum(n > k for n in found) / len(found):.3f}")


if __name__ == "__main__":
    main()

"""Whole pilots with ladders of whole runs and with trunks, on the same worlds.

``python -m benchmarks.simulated_trunks`` prints the table of docs/statistics.md. The branches of a
trunk have part of their noise in common (``shared``, a share of the variance); runs that start from
the beginning have none. Everything else is as in :mod:`benchmarks.decision`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from benchmarks.decision import Spent, row, spend
from benchmarks.simulated_pilots import KINDS, SHAPES, World, plan_of, worlds

SAVINGS = (0.0, 0.05, 0.20)
SHARED = (0.0, 0.5, 0.9)


def designs() -> Iterator[tuple[str, bool, float]]:
    """Name, whether with trunks, and the share of the noise that branches have in common."""
    yield "whole runs", False, 0.0
    for shared in SHARED:
        yield f"trunks, {shared:.0%} shared", True, shared


def _several(job: tuple[bool, int, list[World], int]) -> list[Spent]:
    trunk, pairs, drawn, first = job
    plan = plan_of(pairs, trunk=trunk)
    return [spend(plan, world, first + i) for i, world in enumerate(drawn)]


def main() -> None:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--pilots", type=int, default=200, help="of each saving and design")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--savings", type=float, nargs="*", default=list(SAVINGS))
    parser.add_argument("--draw", default="trunks", help="another text draws other worlds")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    each = math.ceil(args.pilots / len(args.kinds))
    print(
        "| saving | ladder | holds | go | no-go | wrong | pairs | budgets compared | bias ", end=""
    )
    print("| half width |\n" + "|---" * 10 + "|")
    with ProcessPoolExecutor(args.workers) as pool:
        for saving in args.savings:
            drawn = [w for k in args.kinds for w in worlds(k, saving, each, SHAPES, args.draw)]
            for name, trunk, shared in designs():
                mine = [replace(world, shared=shared) for world in drawn]
                jobs = [(trunk, args.pairs, mine[i : i + 20], i) for i in range(0, len(mine), 20)]
                found = [s for part in pool.map(_several, jobs) for s in part]
                bias = sum(s.error for s in found) / len(found)
                width = sum(s.width for s in found) / len(found)
                cells = f"{row(found, saving)} | {bias:+.4f} | {width:.4f}"
                print(f"| {saving:.0%} | {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()

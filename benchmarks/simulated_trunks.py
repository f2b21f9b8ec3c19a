"""Whole pilots with ladders of whole runs and with trunks, on the same worlds.

``python -m benchmarks.simulated_trunks`` prints the table of docs/statistics.md. The branches of a
trunk have part of their noise in common (``shared``, a share of the variance); runs that start from
the beginning have none. Everything else is as in :mod:`benchmarks.decision`.

``--alone`` simulates both ladders and the rule at known rates, which takes seconds: thousands of
pilots a row.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.decision import Spent, row, spend
from benchmarks.simulated_ladders import BUDGETS, CONFIDENCE, MIN_SAVING, Truth
from benchmarks.simulated_pilots import KINDS, SHAPES, World, plan_of, worlds
from mars_optim.experiment.analysis.ladder import read_ladders
from mars_optim.experiment.analysis.stats import t_interval

Floats = NDArray[np.float64]

SAVINGS = (0.0, 0.05, 0.20)
SHARED = (0.0, 0.5, 0.9)


def designs() -> Iterator[tuple[str, bool, float]]:
    """Name, whether with trunks, and the share of the noise that branches have in common."""
    yield "whole runs", False, 0.0
    for shared in SHARED:
        yield f"trunks, {shared:.0%} shared", True, shared


def both_ratios(
    truth: Truth, shared: float, pairs: int, repeats: int, rng: np.random.Generator
) -> Floats:
    """Log token ratios (repeats, pairs) as read off both arms' ladders.

    Args:
        truth: as in :mod:`benchmarks.simulated_ladders`.
        shared: share of a run's noise variance that all budgets of one arm and seed have.
        pairs: of each pilot.
        repeats: pilots.
        rng: of the noise.
    """
    logs, n = np.log(BUDGETS), repeats * pairs
    level = truth.level * rng.standard_normal((n, 1))
    arms = []
    for effect in (0.0, truth.effect):
        own, common = rng.standard_normal((n, logs.size)), rng.standard_normal((n, 1))
        noise = truth.noise * (np.sqrt(1.0 - shared) * own + np.sqrt(shared) * common)
        arms.append(truth.loss(logs + effect) + level + noise)
    return read_both(logs, *arms).reshape(repeats, pairs)


def read_both(logs: Floats, baseline: Floats, candidate: Floats) -> Floats:
    """Savings that ``both_ways`` reads, of many pairs of ladders (n, rungs) at once."""
    unit = int(np.argmin(np.abs(logs)))
    there, side = read_ladders(logs, baseline, candidate[:, unit])
    back, turned = read_ladders(logs, candidate, baseline[:, unit])
    back, other = -back, -turned
    stronger = np.where(side > 0, np.maximum(there, back), np.minimum(there, back))
    beyond = np.where(side == other, stronger, there)
    one = np.where(side == 0, there, np.where(other == 0, back, beyond))
    found: Floats = np.where((side == 0) & (other == 0), (there + back) / 2, one)
    return found


def alone(repeats: int) -> None:
    """Print the table of ladders and rule at known rates, as Markdown."""
    print("| noise | saving | shared | pairs | holds | go | no-go | bias | half width |")
    print("|---" * 9 + "|")
    for noise in (0.01, 0.03):
        for saving in SAVINGS:
            for shared in SHARED:
                truth = Truth(effect=-math.log1p(-saving), noise=noise)
                ratios = both_ratios(truth, shared, 5, repeats, np.random.default_rng(0))
                intervals = [t_interval(row, CONFIDENCE) for row in ratios.tolist()]
                least = -math.log1p(-MIN_SAVING)
                held = np.mean([i.low <= truth.effect <= i.high for i in intervals])
                go = np.mean([i.low > least for i in intervals])
                no_go = np.mean([i.high < least for i in intervals])
                width = np.mean([(i.high - i.low) / 2 for i in intervals])
                print(
                    f"| {noise} | {saving:.0%} | {shared:.0%} | 5 | {held:.1%} | {go:.1%} | "
                    f"{no_go:.1%} | {ratios.mean() - truth.effect:+.4f} | {width:.4f} |",
                    flush=True,
                )


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
    parser.add_argument("--alone", action="store_true", help="at known rates")
    args = parser.parse_args()
    if args.alone:
        alone(args.pilots)
        return
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

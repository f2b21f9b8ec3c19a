"""Which of the runs that exist are compared, and which are trials of a learning rate."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from ..records.trials import most_used_lr
from .discovery import Found

Loss = Callable[[Found], float | None]


def sorted_by_rate(
    found: Iterable[Found], unit: int, seeds: Iterable[int], loss: Loss
) -> tuple[list[Found], list[Found], list[Found]]:
    """Compared runs, trials, and runs at other rates that serve for neither.

    An arm is compared at the rate with the most paired seeds; of equals, at that of the lowest mean
    loss. Its runs of the common budget at other rates are trials. So are all runs of a seed that
    some arm has at several rates, if two or more other pairs are left: runs that chose a rate
    should not judge it. Runs of other budgets are taken at the same rate or, without any, at the
    rate with the most seeds.

    Args:
        found: all runs, each with its number of steps.
        unit: steps of the common budget.
        seeds: that are paired.
        loss: final loss of a run; None if it diverged.
    """
    compared, trials, rest = list[Found](), list[Found](), list[Found]()
    by_arm: dict[str, list[Found]] = {}
    for run in found:
        by_arm.setdefault(run.arm, []).append(run)
    tuning = _tuning_seeds(run for runs in by_arm.values() for run in runs if run.steps == unit)
    judging = set(seeds) - tuning
    if len(judging) < 2:
        judging, tuning = set(seeds), set()
    for runs in by_arm.values():
        whole = [run for run in runs if run.steps == unit]
        rate = _rate(whole, judging, loss) if whole else None
        compared += [run for run in whole if run.lr == rate and run.seed not in tuning]
        trials += [run for run in whole if run.lr != rate or run.seed in tuning]
        for steps in sorted({run.steps for run in runs} - {unit}):
            rung = [run for run in runs if run.steps == steps]
            at = rate if rate in {r.lr for r in rung} else _rate(rung, judging, loss)
            compared += [run for run in rung if run.lr == at]
            rest += [run for run in rung if run.lr != at]
    return compared, trials, rest


def _tuning_seeds(runs: Iterable[Found]) -> set[int]:
    """Seeds of which an arm has runs at several rates."""
    rates: dict[tuple[str, int], set[float]] = {}
    for run in runs:
        rates.setdefault((run.arm, run.seed), set()).add(run.lr)
    return {seed for (_, seed), lrs in rates.items() if len(lrs) > 1}


def _rate(runs: Sequence[Found], seeds: set[int], loss: Loss) -> float:
    losses: dict[float, list[float | None]] = {run.lr: [] for run in runs}
    for run in runs:
        if run.seed in seeds:
            losses[run.lr].append(loss(run))
    return most_used_lr(losses)


def spacing(runs: Iterable[Found], usual: float) -> float:
    """The usual factor between neighbouring rates of one arm; ``usual`` if each has one rate."""
    rates: dict[str, set[float]] = {}
    for run in runs:
        if run.lr > 0:
            rates.setdefault(run.arm, set()).add(run.lr)
    ratios = [b / a for lrs in rates.values() for a, b in pairwise(sorted(lrs))]
    return max(1.1, statistics.median(ratios)) if ratios else usual

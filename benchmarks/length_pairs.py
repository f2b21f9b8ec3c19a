"""Arms of several tables of runs, paired by seed: ``python -m benchmarks.length_pairs TABLE ...``.

The tables are those of :mod:`.run_lengths`, of one task; ``--tokens`` chooses the length. An arm's
loss is the lowest point of the parabola in log rate through its best rate and the two beside it,
best by seed 1; with ``--grid`` that of the best rate itself, where rates beside it are missing, as
where a rate beside it is a wall. An arm without seed 1 is left out, and named. With ``--rate`` all
arms are read at that one.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from . import table
from .length_report import lowest_of, told
from .output import UserError
from .output import run as run_main
from .study_runs import Row, read

Losses = Mapping[float, Mapping[int, float]]  # by rate and seed


def one_task(rows: Iterable[Row]) -> list[Row]:
    """The rows, if they are of one task and no run has two losses.

    Raises:
        UserError: naming what differs.
    """
    found: dict[tuple[str, int, int, float], Row] = {}
    kept = list(rows)
    for row in kept:
        for key in ("data", "width", "layers", "parameters"):
            if (other := getattr(kept[0], key)) != getattr(row, key):
                raise UserError(
                    f"the tables are of different tasks: {key} is {other} and {getattr(row, key)}; "
                    "losses of one task alone can be paired"
                )
        same = found.setdefault((row.arm, row.tokens, row.seed, row.rate), row)
        if same.loss != row.loss:
            raise UserError(
                f"{row.arm} at {row.rate:g}, seed {row.seed}, {row.tokens} tokens has two losses, "
                f"{same.loss:g} and {row.loss:g}: give one of its tables alone"
            )
    return kept


def by_rate(rows: Iterable[Row], arm: str, tokens: int) -> Losses:
    """Losses of an arm at one length."""
    found: dict[float, dict[int, float]] = defaultdict(dict)
    for row in rows:
        if (row.arm, row.tokens) == (arm, tokens):
            found[row.rate][row.seed] = row.loss
    return found


def best_rate(losses: Losses) -> float:
    """The best rate of seed 1."""
    return min((r for r in losses if 1 in losses[r]), key=lambda r: losses[r][1])


def lowest(losses: Losses, *, grid: bool) -> dict[int, float]:
    """The loss of each seed: at the best rate, or at the lowest point about it."""
    best = best_rate(losses)
    if grid:
        return dict(losses[best])
    threes = {}
    for seed in losses[best]:
        left, mid, right = (losses.get(best * factor, {}).get(seed) for factor in (0.5, 1.0, 2.0))
        if left is not None and mid is not None and right is not None:
            threes[seed] = left, mid, right
    return lowest_of(threes)


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> str:
    """The difference over the seeds that both have, in words."""
    return told([one[seed] - other[seed] for seed in sorted(one) if seed in other])


def main(argv: list[str]) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.length_pairs", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--tokens", type=int, required=True, help="of a run")
    parser.add_argument("--less", nargs="+", required=True, help="arms to pair all others with")
    parser.add_argument("--grid", action="store_true", help="at the best rate tried")
    parser.add_argument("--rate", type=float, help="at which all arms are read")
    given = parser.parse_args(argv)
    rows = one_task(row for path in given.tables for row in read(path))
    if given.rate is not None:
        rows = [row for row in rows if math.isclose(row.rate, given.rate)]
    known = {row.arm for row in rows if (row.tokens, row.seed) == (given.tokens, 1)}
    all_arms = list(dict.fromkeys(row.arm for row in rows if row.tokens == given.tokens))
    arms = [arm for arm in all_arms if arm in known]
    if left := [arm for arm in all_arms if arm not in known]:
        print(f"left out, since seed 1 was not run: {', '.join(left)}", file=sys.stderr)
    if unknown := [arm for arm in given.less if arm not in arms]:
        some = ", ".join(arms) or "none"
        at = "" if given.rate is None else f" at {given.rate:g}"
        raise UserError(f"--less {unknown[0]}: the arms with {given.tokens} tokens{at} are {some}")
    losses = {arm: by_rate(rows, arm, given.tokens) for arm in arms}
    grid = given.grid or given.rate is not None
    points = {arm: lowest(its, grid=grid) for arm, its in losses.items()}
    lines = [
        [
            arm,
            f"{best_rate(losses[arm]):g}",
            f"{statistics.fmean(its.values()):.4f}" if its else "-",
            *("" if arm == other else paired(its, points[other]) for other in given.less),
        ]
        for arm, its in points.items()
    ]
    print(table.markdown(["arm", "best rate", "loss", *(f"less {a}'s" for a in given.less)], lines))


if __name__ == "__main__":
    run_main(main)

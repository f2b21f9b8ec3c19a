"""Does the forecast hold on records that nobody here made? Cells left out, beside plain rivals.

``python -m benchmarks.forecast_records`` prints the tables of docs/scaling.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mars_optim.experiment.analysis.stats import t_quantile
from mars_optim.experiment.scaling.fit import grid
from mars_optim.experiment.scaling.forecast import log_ratios, posterior
from mars_optim.experiment.scaling.law import FORMS, LONGEST, Knots, Law
from mars_optim.experiment.scaling.rows import Row
from mars_optim.experiment.scaling.table import Table, table

from . import output
from .public_records import marin, observed

Cell = tuple[str, float, float]
QUANTILES = (0.025, 0.1, 0.5, 0.9, 0.975)


@dataclass(frozen=True, slots=True)
class Answer:
    """A forecast of one log ratio, and what was measured.

    Args:
        ends: its 2.5, 10, 50, 90 and 97.5 % points.
        truth: log token ratio as measured.
    """

    ends: tuple[float, ...]
    truth: float

    def score(self, level: float) -> float:
        """The interval score of Gneiting and Raftery: width, and 2 / alpha for what misses."""
        low, high = (self.ends[0], self.ends[4]) if level == 0.95 else (self.ends[1], self.ends[3])
        missed = max(low - self.truth, 0.0) + max(self.truth - high, 0.0)
        return high - low + 2 / (1 - level) * missed


def designs(rows: Sequence[Row]) -> dict[str, Callable[[Row], bool]]:
    """Rows that each design keeps of the table, by the design's name."""
    sizes = sorted({row.parameters for row in rows})

    def length(row: Row) -> float:
        return round(row.tokens / row.parameters / 20, 2)

    longest = sorted({length(row) for row in rows if row.parameters == sizes[-1]})
    return {
        "largest size": lambda r: r.parameters < sizes[-1],
        "two largest sizes": lambda r: r.parameters < sizes[-2],
        "longest budget": lambda r: length(r) < longest[-1],
        "two longest budgets": lambda r: length(r) < longest[-2],
        "largest size and longest budget": lambda r: (
            r.parameters < sizes[-1] and length(r) < longest[-1]
        ),
    }


def joint(kept: Sequence[Row], baseline: str, cells: Sequence[Cell]) -> list[tuple[float, ...]]:
    """The forecast of mars forecast, refusals left aside."""
    known = table(kept, baseline)
    found = posterior(known)
    ends = []
    for arm, size, tokens in cells:
        logs = log_ratios(known, found, size, tokens)[:, known.arms.index(arm) - 1]
        ends.append(tuple(np.quantile(logs, QUANTILES).tolist()))
    return ends


def _ends(middle: float, sd: float, degrees: int) -> tuple[float, ...]:
    halves = [t_quantile(level, degrees + 1) * sd for level in (0.95, 0.8)]
    return middle - halves[0], middle - halves[1], middle, middle + halves[1], middle + halves[0]


def same(kept: Sequence[Row], baseline: str, cells: Sequence[Cell]) -> list[tuple[float, ...]]:
    """The mean ratio at the largest size measured, with Student's interval for one more."""
    ratios = observed(list(kept), baseline)
    ends = []
    for arm, size, _ in cells:
        mine = {n for a, n, _ in ratios if a == arm and n <= size}
        values = [v for (a, n, _), v in ratios.items() if a == arm and n == max(mine)]
        spread = float(np.std(values, ddof=1)) * math.sqrt(1 + 1 / len(values))
        ends.append(_ends(float(np.mean(values)), spread, len(values) - 1))
    return ends


def line(kept: Sequence[Row], baseline: str, cells: Sequence[Cell]) -> list[tuple[float, ...]]:
    """A line of the log ratio over log parameters, with its interval for one more."""
    ratios = observed(list(kept), baseline)
    ends = []
    for arm, size, _ in cells:
        mine = [(math.log(n), v) for (a, n, _), v in ratios.items() if a == arm]
        x, y = np.array(mine).T
        columns = np.column_stack([np.ones_like(x), x - x.mean()])[:, : min(2, len({*x}))]
        there = np.array([1.0, math.log(size) - x.mean()])[: columns.shape[1]]
        fitted, *_ = np.linalg.lstsq(columns, y, rcond=None)
        degrees = len(x) - columns.shape[1]
        variance = float(((y - columns @ fitted) ** 2).sum()) / degrees
        leverage = 1 + float(there @ np.linalg.inv(columns.T @ columns) @ there)
        ends.append(_ends(float(there @ fitted), math.sqrt(variance * leverage), degrees))
    return ends


def apart(kept: Sequence[Row], baseline: str, cells: Sequence[Cell]) -> list[tuple[float, ...]]:
    """A law of its own for each arm, with the same priors: E + a N^-alpha + b D^-beta."""
    known = table(kept, baseline)
    rng, draws = np.random.default_rng(0), {}
    law = Law(FORMS[0], 1, Knots.of(known.data.at))
    for i, arm in enumerate(known.arms):
        data = known.data[known.data.at.arm == i]
        data = replace(data, at=replace(data.at, arm=0 * data.at.arm))
        fits = grid(data, law)
        weight = np.exp(np.array([fit.evidence for fit in fits]) - max(f.evidence for f in fits))
        draws[arm] = np.concatenate(
            [
                rng.multivariate_normal(fit.theta, fit.covariance, round(4000 * share))
                for fit, share in zip(fits, (weight / weight.sum()).tolist(), strict=True)
            ]
        )
    return [_law_ratio(law, known, draws[baseline], draws[arm], n, d) for arm, n, d in cells]


def _law_ratio(
    law: Law, known: Table, base: np.ndarray, arm: np.ndarray, size: float, tokens: float
) -> tuple[float, ...]:
    at = known.at(size, tokens, [0])
    n = min(len(base), len(arm))
    here, fall = law.losses(base[:n], at)[:, 0], law.slopes(base[:n], at)[:, 0]
    beta = np.exp(base[:n, 4])
    left = 1 + (law.losses(arm[:n], at)[:, 0] - here) * beta / fall
    logs = np.minimum(-np.log(np.maximum(left, 1e-300)) / beta, LONGEST)
    return tuple(np.quantile(logs, QUANTILES).tolist())


METHODS = {
    "joint law": joint,
    "same ratio": same,
    "line in log N": line,
    "law per arm": apart,
}


def answers(
    rows: Sequence[Row], baseline: str, keep: Callable[[Row], bool], method: str
) -> list[Answer]:
    """Forecasts of the cells left out."""
    kept = [row for row in rows if keep(row)]
    there = {(r.arm, r.parameters, r.tokens) for r in kept}
    truth = {c: v for c, v in observed(list(rows), baseline).items() if c not in there}
    cells = sorted(truth)
    found = METHODS[method](kept, baseline, cells)
    return [Answer(ends, truth[cell]) for cell, ends in zip(cells, found, strict=True)]


def row_of(name: str, method: str, found: Sequence[Answer]) -> str:
    """A line of the table."""
    inside = [
        sum(a.ends[i] <= a.truth <= a.ends[-1 - i] for a in found) / len(found) for i in (1, 0)
    ]
    width = np.mean([a.ends[4] - a.ends[0] for a in found])
    errors = np.array([a.ends[2] - a.truth for a in found])
    scores = [np.mean([a.score(level) for a in found]) for level in (0.8, 0.95)]
    return (
        f"| {name} | {method} | {len(found)} | {inside[0]:.0%} | {inside[1]:.0%} | {width:.3f} | "
        f"{errors.mean():+.3f} | {math.sqrt((errors**2).mean()):.3f} | {scores[0]:.3f} | "
        f"{scores[1]:.3f} |"
    )


def main(arguments: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forecast_records")
    parser.add_argument("--table", type=Path, help="in marin_best.csv's columns (default: that)")
    parser.add_argument("--baseline", default="adamw", help="(default: %(default)s)")
    args = parser.parse_args(arguments)
    rows = marin(args.table)
    print(
        "| left out | forecast | cells | 80 % holds | 95 % holds | width of 95 % | bias | error | "
        "score 80 % | score 95 % |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for name, keep in designs(rows).items():
        for method in METHODS:
            print(row_of(name, method, answers(rows, args.baseline, keep, method)), flush=True)


if __name__ == "__main__":
    output.run(main)

"""Looks at every pair on the noise of real runs: the seeds of track 3, drawn again.

``python -m benchmarks.replayed_seeds`` prints the table of docs/statistics.md. Baseline and
candidate draw their final losses from one cell of track 3, with the noise of models of 124 M
parameters. The least gain is then set a given distance below or above the true one, which is 0.
Losses are compared as they are: a log token ratio is their difference over the slope of the
baseline's curve, one number for all pairs, and changes no decision.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from mars_optim.experiment.analysis.looks import FIRST, hopeful, interval
from mars_optim.experiment.analysis.verdict import by_interval
from mars_optim.experiment.plan.decision import DecisionPlan

from . import output
from .public_records import final_losses
from .table import markdown

RUNS = 15  # of a cell, at least
BEYOND = (-0.004, -0.002, -0.001, 0.0, 0.001, 0.002, 0.004)
ONCE, EVERY = DecisionPlan(), DecisionPlan(looks="every-pair")
DESIGNS = {"3 pairs": (ONCE, 3), "5 pairs": (ONCE, 5), "every pair to 10": (EVERY, 10)}
HEADER = ("truth beyond the least gain", "design", "holds", "go", "no-go", "wrong", "pairs")


def stop(gains: Sequence[float], least: float, decision: DecisionPlan) -> tuple[str, bool, int]:
    """The decision on gains of true mean 0, whether the interval holds it, and pairs at the stop.

    Args:
        gains: of all pairs that the plan allows, in order.
        least: the least gain, in their unit.
        decision: the plan's rule.
    """
    most = len(gains)
    n = FIRST if decision.looks == "every-pair" else most
    while True:
        found = interval(gains[:n], decision)
        assert found is not None
        told = by_interval(found, least, set())
        open_yet = told == "not-enough-runs" and n < most
        if not (open_yet and hopeful(found, least, decision.confidence, most)):
            return told, found.low <= 0.0 <= found.high, n
        n += 1


def pairs(cells: Sequence[Sequence[float]], most: int, pilots: int, seed: int) -> list[list[float]]:
    """(pilots, most) gains: two independent runs of one cell, cells taken in turn."""
    rng = np.random.default_rng(seed)
    return [
        (rng.choice(cell, most) - rng.choice(cell, most)).tolist()
        for cell in (cells[i % len(cells)] for i in range(pilots))
    ]


def rows(cells: Sequence[Sequence[float]], pilots: int) -> list[list[str]]:
    """The table, with standard errors."""
    lines = []
    for i, beyond in enumerate(BEYOND):
        wrong = "go" if beyond <= 0 else "no-go"
        for name, (decision, most) in DESIGNS.items():
            found = [stop(p, -beyond, decision) for p in pairs(cells, most, pilots, i)]
            told = np.array([decided for decided, _, _ in found])
            hits = ([held for _, held, _ in found], told == "go", told == "no-go", told == wrong)
            taken = float(np.mean([n for _, _, n in found]))
            shares = (share(np.asarray(x)) for x in hits)
            lines.append([f"{1e3 * beyond:+.0f}", name, *shares, f"{taken:.2f}"])
    return lines


def share(hits: np.ndarray) -> str:
    """Per cent, with its standard error."""
    p = hits.mean()
    return f"{100 * p:.1f} ± {100 * np.sqrt(p * (1 - p) / len(hits)):.1f}"


def main(arguments: list[str]) -> None:
    """Print the table, as Markdown; distances in 0.001 nats."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replayed_seeds")
    parser.add_argument("--pilots", type=int, default=4000, help="a row (default: %(default)s)")
    args = parser.parse_args(arguments)
    cells = {c: losses for c, losses in final_losses().items() if len(losses) >= RUNS}
    for name, losses in cells.items():
        print(f"{name}: {len(losses)} runs, sd {np.std(losses, ddof=1):.5f}")
    print(markdown(HEADER, rows(list(cells.values()), args.pilots)))


if __name__ == "__main__":
    output.run(main)

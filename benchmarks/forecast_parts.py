"""Causes of the width of the forecast's intervals: parts taken away from the same draws.

``python -m benchmarks.forecast_parts`` prints the tables of docs/scaling.md. The drift's change at
the largest size and at the greatest length is told by no cell of a table, so that it is as in the
prior and can be scaled in the draws without another fit.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mars_optim.experiment.scaling.forecast import (
    Posterior,
    law_ratios,
    log_ratios_along,
    posterior,
)
from mars_optim.experiment.scaling.law import OWN, SHARED, Floats, Points
from mars_optim.experiment.scaling.rows import Row
from mars_optim.experiment.scaling.table import Table, table

from . import output
from .forecast_records import QUANTILES, Answer, designs
from .public_records import marin, observed
from .rate_search import lowest
from .simulated_forecasts import KINDS, SIZES, World, runs_of

Target = tuple[float, float]  # parameters, tokens
VALLEY = 0.04  # rise of the loss an octave from the best rate; it goes with octaves squared
PARTS = ("all", "no luck", "bend beyond halved", "no bend beyond", "neither")
ONE_SIZE = ((0.001, 1, 4, 3), (0.003, 1, 4, 3), (0.01, 1, 4, 3))
DESIGNS = ((0.001, 3, 4, 3), (0.003, 4, 3, 3), (0.01, 5, 2, 3))  # noise, sizes, lengths, seeds


def scaled(found: Posterior, share: float) -> Posterior:
    """With so much of the drift's change at the largest size and at the greatest length."""
    fits = []
    for fit, theta in found.fits:
        knots, made = fit.law.knots, theta.copy()
        sizes, lengths = len(knots.sizes), len(knots.lengths)
        own = made[:, SHARED:].reshape(len(made), fit.law.arms - 1, OWN + sizes + lengths)
        if sizes:
            own[..., OWN + sizes - 1] *= share
        if lengths:
            own[..., -1] *= share
        fits.append((fit, made))
    return Posterior(tuple(fits), found.weights)


def parts(known: Table, found: Posterior, targets: Sequence[Target]) -> dict[str, Floats]:
    """Draws of the log ratio (draws, targets, arms) with each part taken away."""
    none, half = scaled(found, 0.0), scaled(found, 0.5)
    arms = range(1, len(known.arms))
    at, shape = Points.joined([known.at(*t, arms) for t in targets]), (-1, len(targets), len(arms))
    draws = (
        log_ratios_along(known, found, targets),
        law_ratios(found, at).reshape(shape),
        log_ratios_along(known, half, targets),
        log_ratios_along(known, none, targets),
        law_ratios(none, at).reshape(shape),
    )
    return dict(zip(PARTS, draws, strict=True))


@dataclass(frozen=True, slots=True)
class Surprise:
    """Deviation of a world from its law, beyond the luck of seeds.

    Args:
        bend: standard deviation of a change of each arm's drift at the largest size.
        settings: of each cell's own luck with its settings, in units of a run's noise.
        tuned: how each cell's rate is chosen, from one run a rate on one seed: "" at no cost,
            "grid" the best of rates an octave apart, "fit" the parabola through the best three.
    """

    bend: float = 0.0
    settings: float = 0.0
    tuned: str = ""

    def luck(self, noise: float, rng: np.random.Generator) -> float:
        """The part of a cell's loss beyond the law's, its seeds apart."""
        return float(rng.normal(0, self.settings * noise)) + self._rise(noise, rng)

    def _rise(self, noise: float, rng: np.random.Generator) -> float:
        """VALLEY octaves^2, at the rate that trials on one seed lead to."""
        if not self.tuned:
            return 0.0
        places = np.arange(-3.0, 4.0) + rng.uniform(-0.5, 0.5)  # octaves from the best rate
        trials = VALLEY * places**2 + rng.normal(0, noise, len(places))
        i = int(np.argmin(trials))
        chosen = float(places[i])
        if self.tuned == "fit" and (found := lowest(*trials[i - 1 : i + 2].tolist())):
            chosen += found.place
        return VALLEY * chosen**2


def of_world(
    world: World,
    design: tuple[float, int, int, int],
    rng: np.random.Generator,
    surprise: Surprise,
) -> dict[str, list[Answer]]:
    """Forecasts of a world at twice and four times its largest size; of one size, its length.

    Args:
        world: whose law is known.
        design: noise, sizes, lengths and seeds.
        rng: of the noise.
        surprise: what else is in it.
    """
    noise, sizes, lengths, seeds = design
    rows = runs_of(world, sizes, lengths, noise, seeds, rng)
    cells = {(r.arm, r.parameters, r.tokens): surprise.luck(noise, rng) for r in rows}
    rows = [replace(r, loss=r.loss + cells[r.arm, r.parameters, r.tokens]) for r in rows]
    known = table(rows, "base")
    found = posterior(known)
    bends = rng.normal(0, surprise.bend, 3)
    told: dict[str, list[Answer]] = {name: [] for name in PARTS}
    largest = SIZES[sizes - 1]
    longest = 2 ** (lengths - 1)
    ways = ((2.0, 1), (2.0, longest), (4.0, 2))
    if sizes == 1:
        ways = ((1.0, 2 * longest), (1.0, 4 * longest), (1.0, 8 * longest))
    targets = [(largest * times, 20 * length * largest * times) for times, length in ways]
    truths = np.zeros((len(targets), 3))
    for i, (size, tokens) in enumerate(targets):
        luck = [surprise.luck(noise, rng) for _ in range(4)]
        for arm in (1, 2, 3):
            law = world.log_ratio(arm, size, tokens) + bends[arm - 1] * math.log(size / largest)
            truths[i, arm - 1] = law + (luck[0] - luck[arm]) / world.fall(tokens * math.exp(law))
    for name, logs in parts(known, found, targets).items():
        ends = np.quantile(logs, QUANTILES, axis=0).reshape(len(QUANTILES), -1).T.tolist()
        told[name] += [Answer(tuple(e), t) for e, t in zip(ends, truths.ravel(), strict=True)]
    return told


def of_records(rows: Sequence[Row]) -> dict[str, dict[str, list[Answer]]]:
    """Cells that each design of the records leaves out."""
    ratios, found = observed(list(rows), "adamw"), {}
    for design, keep in designs(rows).items():
        kept = [row for row in rows if keep(row)]
        there = {(r.arm, r.parameters, r.tokens) for r in kept}
        known = table(kept, "adamw")
        law = posterior(known)
        told: dict[str, list[Answer]] = {name: [] for name in PARTS}
        targets = sorted({cell[1:] for cell in ratios if cell not in there})
        for name, logs in parts(known, law, targets).items():
            told[name] += [
                Answer(_ends(logs[:, i, j]), ratios[arm, *target])
                for i, target in enumerate(targets)
                for j, arm in enumerate(known.arms[1:])
                if (arm, *target) in ratios and (arm, *target) not in there
            ]
        found[design] = told
    return found


def _ends(logs: Floats) -> tuple[float, ...]:
    return tuple(np.quantile(logs, QUANTILES).tolist())


def _rows(name: str, told: dict[str, list[Answer]]) -> str:
    lines = []
    for part, found in told.items():
        inside = [np.mean([a.ends[i] <= a.truth <= a.ends[-1 - i] for a in found]) for i in (1, 0)]
        half = np.mean([a.ends[4] - a.ends[0] for a in found]) / 2
        error = math.sqrt(np.mean([(a.ends[2] - a.truth) ** 2 for a in found]))
        score = np.mean([a.score(0.95) for a in found])
        lines.append(
            f"| {name} | {part} | {len(found)} | {inside[0]:.1%} | {inside[1]:.1%} | {half:.3f} | "
            f"{error:.3f} | {score:.3f} |"
        )
    return "\n".join(lines)


def _muon(rows: Sequence[Row]) -> str:
    """The case that must lie inside: Muon at 1.2 B parameters from all of the records."""
    known = table(rows, "adamw")
    found = posterior(known)
    lines = ["| tokens | part | Muon at 1.2e9 parameters (95 %) |", "|---|---|---|"]
    targets = [(1.2e9, 2.4e10), (1.2e9, 1.9e11)]
    for part, logs in parts(known, found, targets).items():
        for i, (_, tokens) in enumerate(targets):
            low, _, middle, _, high = map(math.exp, _ends(logs[:, i, known.arms.index("muon") - 1]))
            lines.append(f"| {tokens:.2g} | {part} | {middle:.2f} ({low:.2f} to {high:.2f}) |")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forecast_parts")
    parser.add_argument("--worlds", type=int, default=2, help="of each kind and design")
    parser.add_argument("--seed", type=int, default=7, help="of the worlds (default: %(default)s)")
    parser.add_argument("--bend", type=float, default=0.0, help="of the worlds' arms beyond")
    parser.add_argument("--settings", type=float, default=0.0, help="luck with them, in noises")
    parser.add_argument("--tuned", choices=("", "grid", "fit"), default="", help="rates of cells")
    parser.add_argument("--only", choices=KINDS, nargs="+", default=list(KINDS), help="of arms")
    parser.add_argument("--no-records", action="store_true", help="worlds only")
    parser.add_argument("--one-size", action="store_true", help="worlds of one size, at lengths")
    args = parser.parse_args(arguments)
    chosen = (ONE_SIZE if args.one_size else DESIGNS) * args.worlds
    rng, surprise = np.random.default_rng(args.seed), Surprise(args.bend, args.settings, args.tuned)
    print("| of | parts | forecasts | 80 % holds | 95 % holds | half width | error | score 95 % |")
    print("|---" * 8 + "|")
    if not args.no_records:
        for design, told in of_records(marin()).items():
            print(_rows(design, told), flush=True)
        print("\n" + _muon(marin()) + "\n", flush=True)
    everything: dict[str, list[Answer]] = {name: [] for name in PARTS}
    for i, design in enumerate(chosen):
        for kind in args.only:
            told = of_world(World.draw(kind, rng), design, rng, surprise)
            for name, found in told.items():
                everything[name] += found
        print(_rows(f"worlds so far ({i + 1} of {len(chosen)})", everything),
              flush=True)  # fmt: skip


if __name__ == "__main__":
    output.run(main)

"""Does the forecast keep its word? Worlds with a known truth, through the whole path.

``python -m benchmarks.simulated_forecasts`` prints a table of docs/scaling.md.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import numpy as np

from mars_optim.experiment.scaling.forecast import log_ratios, posterior
from mars_optim.experiment.scaling.law import LONGEST
from mars_optim.experiment.scaling.rows import Row
from mars_optim.experiment.scaling.table import table

from . import output
from .forecast_records import QUANTILES, Answer

SIZES = (1.3e8, 3.0e8, 5.2e8, 1.0e9, 2.0e9)
LENGTHS = (1, 2, 4, 8)
KINDS = {
    "same gain": "each arm a constant ratio",
    "fading": "gains shrink as a power of size",
    "crossing": "arms drift by up to 15 % for each e-fold, through the baseline's",
    "two factors": "arms rescale parameters too",
    "bent": "gains drift up to the second size and no further",
}


@dataclass(frozen=True, slots=True)
class World:
    """A law with a kind of arms: E + a (N / 1e9)^-alpha + b (D / 2e10)^-beta.

    Args:
        kind: of :data:`KINDS`.
        law: E, a, alpha, b, beta.
        ahead: log ratio at the smallest size of each arm.
        drift: of each arm, for each e-fold of parameters, and of tokens per parameter.
    """

    kind: str
    law: tuple[float, ...]
    ahead: tuple[float, ...]
    drift: tuple[tuple[float, float], ...]

    @classmethod
    def draw(cls, kind: str, rng: np.random.Generator) -> World:
        """One of the worlds of a kind."""
        law = (
            rng.uniform(1.5, 2.2), rng.uniform(0.4, 0.8), rng.uniform(0.25, 0.4),
            rng.uniform(0.3, 0.6), rng.uniform(0.25, 0.4),
        )  # fmt: skip
        ahead = tuple(np.exp(rng.uniform(np.log(0.03), np.log(0.4), 3)) * rng.choice([1, 1, -1], 3))
        drift = tuple(map(tuple, rng.uniform(-0.15, 0.15, (3, 2)) * (1.0, 0.5)))
        return cls(kind, law, ahead, drift)

    def loss(self, arm: int, size: float, tokens: float) -> float:
        """Expected loss; arm 0 is the baseline."""
        floor, a, alpha, *_ = self.law
        if arm:
            ratio, factor = self._gain(arm - 1, size, tokens)
            size, tokens = size * math.exp(factor), tokens * math.exp(ratio)
        return floor + a * math.exp(-alpha * math.log(size / 1e9)) + self._tokens(tokens)

    def log_ratio(self, arm: int, size: float, tokens: float) -> float:
        """The truth: log of the tokens that the baseline needs, over the arm's."""
        floor, a, alpha, b, beta = self.law
        rest = self.loss(arm, size, tokens) - floor - a * (size / 1e9) ** -alpha
        return math.log(rest / b) / -beta - math.log(tokens / 2e10) if rest > 0 else math.inf

    def fall(self, tokens: float) -> float:
        """Fall of the baseline's loss per e-fold of tokens."""
        return self.law[4] * self._tokens(tokens)

    def _tokens(self, tokens: float) -> float:
        return self.law[3] * math.exp(-self.law[4] * math.log(tokens / 2e10))

    def _gain(self, i: int, size: float, tokens: float) -> tuple[float, float]:
        n, t = math.log(size / SIZES[0]), math.log(tokens / size / 20)
        ahead, (g, h) = self.ahead[i], self.drift[i]
        if self.kind == "fading":
            return ahead * math.exp(-(abs(g) + 0.1) * n - abs(h) * t), 0.0
        if self.kind == "crossing":
            return ahead / 2 + g * n + h * t, 0.0
        if self.kind == "two factors":
            return ahead / 2, ahead / 3
        if self.kind == "bent":
            return ahead + g * min(n, math.log(SIZES[1] / SIZES[0])), 0.0
        return ahead, 0.0


def runs_of(
    world: World, sizes: int, lengths: int, noise: float, seeds: int, rng: np.random.Generator
) -> list[Row]:
    """Runs of the baseline and three arms in a world."""
    rows = []
    for size in SIZES[:sizes]:
        for length in LENGTHS[:lengths]:
            shared = rng.normal(0, noise, max(1, seeds))
            for arm in range(4):
                for seed in range(max(1, seeds)):
                    loss = world.loss(arm, size, 20 * length * size) + shared[seed]
                    loss += rng.normal(0, noise)
                    name = str(seed) if seeds else ""
                    rows.append(Row("base" if not arm else f"arm{arm}", size, 20 * length * size,
                                    loss, name))  # fmt: skip
    return rows


def answers(
    kind: str, sizes: int, lengths: int, noise: float, seeds: int, rng: np.random.Generator
) -> list[tuple[Answer, Answer]]:
    """One world: forecasts of three arms, beside the true ratio and beside one more run of each.

    At twice the largest size for the shortest and the longest budget, and at four times it.
    """
    world = World.draw(kind, rng)
    known = table(runs_of(world, sizes, lengths, noise, seeds, rng), "base")
    found = posterior(known)
    told = []
    for beyond, length in ((2.0, 1), (2.0, LENGTHS[lengths - 1]), (4.0, 2)):
        size = SIZES[sizes - 1] * beyond
        tokens = 20 * length * size
        logs = log_ratios(known, found, size, tokens)
        for arm in (1, 2, 3):
            truth = world.log_ratio(arm, size, tokens)
            ends = tuple(np.quantile(logs[:, arm - 1], QUANTILES).tolist())
            luck = np.subtract(*rng.normal(0, noise, 2)) / world.fall(tokens * math.exp(truth))
            told.append((Answer(ends, min(truth, LONGEST)), Answer(ends, truth + luck)))
    return told


def main(arguments: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulated_forecasts")
    parser.add_argument("--worlds", type=int, default=20, help="of each row (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the worlds (default: %(default)s)")
    parser.add_argument("--only", choices=KINDS, nargs="*", default=list(KINDS), help="of arms")
    args = parser.parse_args(arguments)
    print("| arms | noise | sizes x budgets | seeds | forecasts | 80 % holds | 95 % holds | "
          "one more run: 80 % | 95 % | half width | error |\n" + "|---" * 11 + "|")  # fmt: skip
    rng = np.random.default_rng(args.seed)
    everything: list[tuple[Answer, Answer]] = []
    for kind in args.only:
        for noise, sizes, lengths, seeds in (
            (0.001, 3, 4, 3), (0.003, 4, 3, 3), (0.01, 5, 2, 3), (0.003, 4, 4, 0),
        ):  # fmt: skip
            found = [
                a
                for _ in range(args.worlds)
                for a in answers(kind, sizes, lengths, noise, seeds, rng)
            ]
            everything += found
            print(f"| {kind} | {noise} | {sizes} x {lengths} | {seeds or ''} |{_row(found)}",
                  flush=True)  # fmt: skip
    print(f"| all | | | |{_row(everything)}")


def _row(found: list[tuple[Answer, Answer]]) -> str:
    inside = [
        np.mean([a.ends[i] <= a.truth <= a.ends[-1 - i] for a in side])
        for side in zip(*found, strict=True)
        for i in (1, 0)
    ]
    true = [a for a, _ in found]
    half = np.mean([a.ends[4] - a.ends[0] for a in true]) / 2
    error = math.sqrt(np.mean([(a.ends[2] - a.truth) ** 2 for a in true]))
    told = " | ".join(f"{share:.1%}" for share in inside)
    return f" {len(found)} | {told} | {half:.3f} | {error:.3f} |"


if __name__ == "__main__":
    output.run(main)

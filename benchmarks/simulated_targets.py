"""Times to a target with runs that miss it: does the interval of their ratio keep its word?

``python -m benchmarks.simulated_targets`` prints the table of docs/statistics.md.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mars_optim.experiment.analysis.stats import t_interval
from mars_optim.experiment.analysis.survival import Floats, Times, draw_ratios, kind_of
from mars_optim.experiment.analysis.target import first_reached

FIELDS = ("base", "cand", "base_missed", "cand_missed")
CONFIDENCE, MIN_SAVING = 0.95, 0.05
EVALUATIONS, TARGET = 50, 0.75


def curves(log_time: Floats, jitter: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Accuracies (..., evaluations) of runs of length 1 that reach the target at exp(log_time)."""
    at = (np.arange(EVALUATIONS) + 1) / EVALUATIONS
    smooth = TARGET + 0.2 * (np.log(at) - log_time[..., None])
    return at, smooth + jitter * rng.standard_normal(smooth.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Where the truth is known.

    Args:
        effect: the true log token ratio.
        missed: share of the baseline's runs that miss the target.
        noise: standard deviation of each run's log time.
        together: correlation of the two runs of a seed.
        jitter: noise of an evaluation, in accuracy.
    """

    effect: float
    missed: float
    noise: float = 0.1
    together: float = 0.5
    jitter: float = 0.0


def draw(pairs: int, repeats: int, world: World, rng: np.random.Generator) -> Times:
    """The times of many pilots, read off their curves."""
    common = math.sqrt(world.together) * rng.standard_normal((repeats, pairs, 1))
    own = math.sqrt(1 - world.together) * rng.standard_normal((repeats, pairs, 2))
    middle = world.noise * (NormalDist().inv_cdf(world.missed) if world.missed else -8.0)
    arms = np.array([middle, middle - world.effect])
    at, values = curves(arms + world.noise * (common + own), world.jitter, rng)
    times, reached, _ = first_reached(at, -values, -TARGET)
    logs, missed = np.log(np.where(reached, times, 1.0)), ~reached
    return Times(logs[..., 0], logs[..., 1], missed[..., 0], missed[..., 1])


def intervals(times: Times) -> tuple[NDArray[np.str_], Floats, Floats]:
    """How the ratio of each pilot is told, and both ends of its interval as far as it holds."""
    repeats = len(times.base)
    parts = [Times(*(getattr(times, f)[i] for f in FIELDS)) for i in range(repeats)]
    kinds = np.array([kind_of(part) for part in parts])
    low, high = np.full(repeats, -np.inf), np.full(repeats, np.inf)
    for i in np.flatnonzero(np.isin(kinds, ["pairs", "at least", "at most"])):
        found = t_interval((parts[i].base - parts[i].cand).tolist(), CONFIDENCE)
        low[i], high[i] = found.low, found.high
    censored = np.flatnonzero(kinds == "censored")
    for chunk in np.array_split(censored, 1 + len(censored) // 500):
        if chunk.size:  # as ratio_interval does, with fewer draws
            mine = Times(*(getattr(times, f)[chunk] for f in FIELDS))
            delta, _ = draw_ratios(mine, chains=16)
            low[chunk], high[chunk] = np.quantile(delta, (0.025, 0.975), axis=0)
    low[kinds == "at most"], high[kinds == "at least"] = -np.inf, np.inf
    return kinds, low, high


def row(pairs: int, repeats: int, world: World, rng: np.random.Generator) -> str:
    """One line of the table."""
    times = draw(pairs, repeats, world, rng)
    kinds, low, high = intervals(times)
    threshold, told = -math.log1p(-MIN_SAVING), kinds != "too few"
    within = (low <= world.effect) & (world.effect <= high)
    model, bound = kinds == "censored", np.isin(kinds, ["at least", "at most"])

    def share(of: NDArray[np.bool_], among: NDArray[np.bool_]) -> str:
        return f"{of[among].mean():.1%}" if among.sum() >= 50 else "-"

    every = np.ones(repeats, bool)
    cells = [
        f"{1 - math.exp(-world.effect):.0%}",
        str(pairs),
        f"{times.base_missed.mean():.0%}",
        f"{times.cand_missed.mean():.0%}",
        *(share(m, every) for m in (kinds == "pairs", model, bound, ~told)),
        *(share(within, m) for m in (told, model, bound)),
        share(told & (low > threshold), every),
        share(told & (high < threshold), every),
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--together", type=float, default=0.5)
    parser.add_argument("--jitter", type=float, default=0.0)
    chosen = parser.parse_args()
    rng = np.random.default_rng(0)
    for effect in (0.0, -math.log1p(-MIN_SAVING), -math.log(0.8), -math.log(0.6)):
        for pairs in (3, 5, 10):
            for missed in (0.0, 0.3, 0.6):
                world = World(
                    effect=effect, missed=missed, together=chosen.together, jitter=chosen.jitter
                )
                print(row(pairs, chosen.repeats, world, rng), flush=True)


if __name__ == "__main__":
    main()

"""Does the method do what it says? Pilots with a known truth, through the whole path.

``python -m benchmarks.simulated_ladders`` prints the tables of docs/statistics.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mars_optim.experiment.analysis.ladder import falling_fit, read_ladders
from mars_optim.experiment.analysis.model import Decision
from mars_optim.experiment.analysis.stats import Interval, pairs_needed, t_interval
from mars_optim.experiment.analysis.verdict import by_interval

BUDGETS = (0.5, 0.75, 1.0, 1.5)  # the default plan's ladder
MIN_SAVING = 0.05
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """A baseline whose loss falls as a power law, and a candidate that is ahead of it.

    Losses are in units of the baseline's slope at the common budget, so that noise and effect are
    both in log tokens.

    Args:
        effect: the true log token ratio.
        noise: standard deviation of each run's loss, on the ladder too.
        bend: exponent of the power law: 0.3 to 0.5 for language models, 0 for a straight line.
        level: standard deviation of what a seed adds to all its runs.
    """

    effect: float
    noise: float
    bend: float = 0.4
    level: float = 0.1

    def loss(self, log_budget: NDArray[np.float64]) -> NDArray[np.float64]:
        """The baseline's expected loss."""
        if not self.bend:
            return -log_budget
        return np.exp(-self.bend * log_budget) / self.bend


def log_ratios(
    truth: Truth, pairs: int, repeats: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """Log token ratios (repeats, pairs) as read off noisy ladders, and where they lie on them."""
    logs = np.log(BUDGETS)
    shape = (repeats * pairs, 1)
    level = truth.level * rng.standard_normal(shape)
    noise = truth.noise * rng.standard_normal((repeats * pairs, len(BUDGETS) + 1))
    losses = truth.loss(np.append(logs, truth.effect)) + level + noise
    read, side = read_ladders(logs, losses[:, :-1], losses[:, -1])
    return read.reshape(repeats, pairs), side.reshape(repeats, pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How often, over many pilots, something happened.

    Args:
        coverage: the interval held the true effect.
        go: the rule said go.
        no_go: the rule said no-go.
        bias: mean of the estimates less the truth.
        width: mean half width of the intervals.
    """

    coverage: float
    go: float
    no_go: float
    bias: float
    width: float


def rates(
    truth: Truth,
    pairs: int,
    *,
    repeats: int = 4000,
    seed: int = 0,
    min_saving: float = MIN_SAVING,
    confidence: float = CONFIDENCE,
) -> Rates:
    """Carry out many pilots and judge each by the rule."""
    rng, threshold = np.random.default_rng(seed), -math.log1p(-min_saving)
    ratios, sides = log_ratios(truth, pairs, repeats, rng)
    intervals = [t_interval(row, confidence) for row in ratios.tolist()]
    decisions = _decide(intervals, sides, threshold)
    return Rates(
        coverage=sum(i.low <= truth.effect <= i.high for i in intervals) / repeats,
        go=decisions.count("go") / repeats,
        no_go=decisions.count("no-go") / repeats,
        bias=float(ratios.mean()) - truth.effect,
        width=float(np.mean([(i.high - i.low) / 2 for i in intervals])),
    )


def straight_coverage(truth: Truth, pairs: int, *, repeats: int = 4000, seed: int = 0) -> float:
    """Coverage if the ladder were read along straight lines, for comparison."""
    logs, rng, hits = np.log(BUDGETS), np.random.default_rng(seed), 0
    for _ in range(repeats):
        noise = truth.noise * rng.standard_normal((pairs, len(BUDGETS) + 1))
        losses = truth.loss(np.append(logs, truth.effect)) + noise
        fits = falling_fit(losses[:, :-1])
        read = [np.interp(-y, -f, logs) for y, f in zip(losses[:, -1], fits, strict=True)]
        interval = t_interval([float(x) for x in read], CONFIDENCE)
        hits += interval.low <= truth.effect <= interval.high
    return hits / repeats


def looked_twice(
    truth: Truth, first: int, then: int, *, repeats: int = 4000, seed: int = 0
) -> float:
    """How often the rule says go after ``first`` pairs or, where it did not, after ``then``."""
    rng, threshold = np.random.default_rng(seed), -math.log1p(-MIN_SAVING)
    ratios, sides = log_ratios(truth, then, repeats, rng)
    looks = []
    for pairs in (first, then):
        intervals = [t_interval(row, CONFIDENCE) for row in ratios[:, :pairs].tolist()]
        looks.append(_decide(intervals, sides[:, :pairs], threshold))
    return sum("go" in both for both in zip(*looks, strict=True)) / repeats


def _decide(
    intervals: Iterable[Interval], sides: NDArray[np.int_], threshold: float
) -> list[Decision]:
    names = {-1: "at most", 1: "at least"}
    return [
        by_interval(i, threshold, {names[s] for s in row if s})
        for i, row in zip(intervals, sides.tolist(), strict=True)
    ]


def main() -> None:
    """Print the tables, as Markdown."""
    min_saving = -math.log1p(-MIN_SAVING)
    print(
        "| bend | noise | true saving | pairs | coverage | go | no-go | bias | half width |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for bend in (0.0, 0.4, 1.0):
        for noise in (0.01, 0.03, 0.1):
            for effect in (0.0, min_saving, 0.2):
                for pairs in (3, 5, 8):
                    r = rates(Truth(effect=effect, noise=noise, bend=bend), pairs)
                    print(
                        f"| {bend:g} | {noise:g} | {-math.expm1(-effect):.0%} | {pairs} "
                        f"| {r.coverage:.1%} | {r.go:.1%} | {r.no_go:.1%} | {r.bias:+.4f} "
                        f"| {r.width:.3f} |"
                    )
    print(
        "\n| pairs | coverage along straight lines: bend 0.4, noise 0.01, saving 18% |\n|---|---|"
    )
    for pairs in (3, 5, 8):
        print(f"| {pairs} | {straight_coverage(Truth(effect=0.2, noise=0.01), pairs):.1%} |")
    print(
        "\n| true saving | noise between pairs | seeds advised | go, simulated |\n|---|---|---|---|"
    )
    for effect, noise in ((0.2, 0.03), (0.2, 0.07), (0.11, 0.03), (0.11, 0.05)):
        truth = Truth(effect=effect, noise=noise)
        sd = float(np.std(log_ratios(truth, 1, 20000, np.random.default_rng(1))[0]))
        n = pairs_needed(effect, sd, min_saving, CONFIDENCE)
        assert n is not None
        go = rates(truth, n).go
        print(f"| {-math.expm1(-effect):.0%} | {sd:.3f} | {n} | {go:.1%} |")
    print("\n| true saving | looks | go |\n|---|---|---|")
    for first, then in ((5, 5), (5, 8), (3, 8)):
        go = looked_twice(Truth(effect=min_saving, noise=0.03), first, then)
        looks = f"{first}" if first == then else f"{first}, then {then}"
        print(f"| {MIN_SAVING:.0%} (what the plan asks for) | {looks} | {go:.1%} |")


if __name__ == "__main__":
    main()

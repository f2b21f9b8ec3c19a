"""Whole pilots that tune more than the rate, with a known truth: do the intervals hold it?

``python -m benchmarks.simulated_tuning`` prints the table of docs/statistics.md. As in
:mod:`.simulated_pilots`, a pilot asks for runs until it has finished: design, choice of the lowest,
comparison on fresh seeds, ladder, bootstrap, interval, rule. The truth is what tuning by as many
trials gives in the mean over many designs and noises: the log token ratio of two arms tuned alike.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats.qmc import Halton

from benchmarks.simulated_pilots import (
    BEND,
    LEVEL,
    SLOPE,
    STEPS,
    carry_out,
    coverage,
    outcomes,
    plan_of,
    share,
)
from mars_optim.experiment.analysis.arm_results import arm_results
from mars_optim.experiment.analysis.comparison import comparison
from mars_optim.experiment.analysis.model import TuningBudget
from mars_optim.experiment.analysis.tuning_budget import tuning_budgets
from mars_optim.experiment.analysis.verdict import decide
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.tuning import Point, TuningPlan, default_of, place_of, value_at
from mars_optim.experiment.records import Run

Floats = NDArray[np.float64]
OVER = ("lr", "weight_decay", "lr_1d", "beta1")
FEW = 4
"""Trials of the smaller budget whose interval is checked too."""
TRUTHS = 600
"""Designs over which a truth is the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Properties of the simulated runs.

    Args:
        effect: true log token ratio of the candidate at its best settings to the baseline at its.
        optimum: places of both arms' best settings in the ranges, (2, names).
        rise: nats at the far end of a range, from its middle, of each name (names,).
        noise: standard deviation of one run, in nats.
    """

    effect: float
    optimum: Floats
    rise: Floats
    noise: float

    def height(self, arm: int, places: Floats) -> Floats:
        """Loss above the lowest at places (..., names) in the ranges of an arm."""
        far = (places - self.optimum[arm]) / 0.5
        steeper = np.where(far > 0, 1.5, 1.0)  # above the best, as for most rates
        total: Floats = (self.rise * steeper * far**2).sum(axis=-1)
        return total


@dataclass(slots=True)
class Losses:
    """A world's losses of one pilot; the same run has the same loss whenever it is asked for."""

    world: World
    plan: Plan
    seed: int

    def __call__(self, spec: RunSpec) -> float:
        """The final loss of a run."""
        is_candidate = spec.arm_name == self.plan.comparison.candidate
        height = height_of(self.world, self.plan, spec)
        tokens = math.log(spec.steps / STEPS) + (self.world.effect if is_candidate else 0.0)
        level = random.Random(f"{self.seed} {spec.seed}").gauss(0.0, LEVEL)
        noise = random.Random(f"{self.seed} {spec.run_id}").gauss(0.0, self.world.noise)
        return 3.0 + SLOPE / BEND * math.exp(-BEND * tokens) + height + level + noise


def height_of(world: World, plan: Plan, spec: RunSpec) -> float:
    """A run's loss above the lowest, by its settings."""
    name, tuning = spec.arm_name, plan.tuning
    own, at = plan.arm[name], Point(spec.arm, spec.lr)
    places = [
        place_of(span, _factor(what, value_at(at, what), default_of(own, what) or 1.0))
        for what, span in tuning.spans(name).items()
    ]
    return float(world.height(int(name == plan.comparison.candidate), np.array(places)))


def _factor(what: str, value: float, default: float) -> float:
    return (1 - value) / (1 - default) if what.startswith("beta") else value / default


def truths(world: World, trials: int, seed: int) -> dict[int, float]:
    """Mean log token ratio when both arms are tuned by :data:`FEW` or by all trials."""
    rng = np.random.default_rng(seed)
    names = world.rise.size
    found: dict[int, list[float]] = {FEW: [], trials: []}
    for _ in range(TRUTHS):
        drawn = Halton(names, scramble=True, rng=rng).random(trials - 1)
        places = np.vstack([np.full(names, 0.5), drawn])
        heights = np.array([world.height(arm, places) for arm in (0, 1)])
        seen = heights + rng.normal(0.0, world.noise, heights.shape)
        some = np.append(0, 1 + rng.permutation(trials - 1)[: FEW - 1])
        for k, ones in ((FEW, some), (trials, np.arange(trials))):
            base, arm = (heights[a, ones[np.argmin(seen[a, ones])]] for a in (0, 1))
            found[k].append(_ratio(world, base, arm))
    return {k: float(np.mean(values)) for k, values in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One pilot: what it said."""

    held: bool
    held_here: bool
    held_few: bool | None
    decision: str
    error: float
    width: float
    width_here: float


def pilot(world: World, truth: dict[int, float], seed: int, plan: Plan) -> Result:
    """Carry out one pilot and judge it."""
    plan = replace(plan, tuning=replace(plan.tuning, seed=1000 + seed))
    made = result(plan, carry_out(plan, Losses(world, plan, seed)), truth)
    assert made is not None
    return made


def result(plan: Plan, runs: list[Run], truth: dict[int, float]) -> Result | None:
    """Result of a pilot; None where its runs give no interval, or a bound only."""
    at = comparison(plan, plan.sizes()[0], runs)
    arms = arm_results(at, {})
    baseline, candidate = arms[plan.comparison.baseline], arms[plan.comparison.candidate]
    found, here = candidate.log_ratio, candidate.log_ratio_here
    if found is None or here is None or (candidate.target and candidate.bounds):
        return None
    true = truth[plan.tuning.trials]
    few = next((b for b in tuning_budgets(at, arms) if b.trials == FEW), None)
    return Result(
        held=found.low <= true <= found.high,
        held_here=here.low <= true <= here.high,
        held_few=_held(few, truth[FEW]),
        decision=decide(plan, baseline, candidate, at.open).decision,
        error=found.mean - true,
        width=(found.high - found.low) / 2,
        width_here=(here.high - here.low) / 2,
    )


def _held(budget: TuningBudget | None, truth: float) -> bool | None:
    """Whether a smaller budget's interval holds; None where readings are bounds."""
    if budget is None or budget.log_ratio is None or budget.bounds:
        return None
    return budget.log_ratio.low <= truth <= budget.log_ratio.high


KINDS: dict[str, tuple[int, int, tuple[float, float], tuple[float, float]]] = {
    "2 names, quiet": (2, 16, (0.05, 0.5), (0.001, 0.003)),
    "2 names, noisy": (2, 16, (0.05, 0.5), (0.01, 0.03)),
    "4 names, quiet": (4, 32, (0.05, 0.5), (0.001, 0.003)),
    "4 names, noisy": (4, 32, (0.05, 0.5), (0.01, 0.03)),
    "3 names, quiet": (3, 32, (0.05, 0.5), (0.001, 0.003)),
    "3 names, noisy": (3, 32, (0.05, 0.5), (0.01, 0.03)),
    "4 names, few trials": (4, 12, (0.05, 0.5), (0.002, 0.01)),
}
"""Names tuned, trials, and log-uniform ranges: nats at an end of the range, nats of a run."""
SAVINGS = (0.05, 0.20)


def worlds(kind: str, saving: float, number: int, draw: str = "") -> Iterator[World]:
    """Worlds of a kind: best settings anywhere in the middle two thirds of the ranges.

    In every other world those of the candidate lie near the baseline's, as places in its ranges.
    """
    names, _, rise, noise = KINDS[kind]
    rng = np.random.default_rng(list(f"{kind} {saving}{draw}".encode()))

    def drawn(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    for i in range(number):
        optimum = rng.uniform(1 / 6, 5 / 6, (2, names))
        if i % 2:
            optimum[1] = optimum[0] + rng.normal(0.0, 0.05, names)
        matter = np.array([1.0, *(drawn(0.05, 1.0) for _ in range(names - 1))])
        yield World(
            effect=-math.log1p(-saving),
            optimum=optimum,
            rise=drawn(*rise) * matter,
            noise=drawn(*noise),
        )


def _in_turn(world: World, first: int, pilots: int, plan: Plan) -> list[Result]:
    """Pilots whose trials are chosen by those before: the truth is the mean of what all chose."""
    plans = [
        replace(plan, tuning=replace(plan.tuning, seed=1000 + first + i)) for i in range(pilots)
    ]
    made = [carry_out(mine, Losses(world, mine, first + i)) for i, mine in enumerate(plans)]
    ratios = []
    for runs in made:
        compared = [r.spec for r in runs if r.spec.purpose == "compare"]
        heights = {spec.arm_name: height_of(world, plan, spec) for spec in compared}
        ratios.append(_ratio(world, *(heights[name] for name in plan.arms)))
    truth = {FEW: math.nan, plan.tuning.trials: float(np.mean(ratios))}
    told = [result(mine, runs, truth) for mine, runs in zip(plans, made, strict=True)]
    return [replace(r, held_few=None) for r in told if r]


def _ratio(world: World, base: float, arm: float) -> float:
    """The log token ratio of a candidate and a baseline at heights above their lowest losses."""
    loss = SLOPE / BEND * math.exp(-BEND * world.effect) + arm - base
    return -math.log(max(loss, 1e-9) * BEND / SLOPE) / BEND


def _several(job: tuple[World, int, int, Plan]) -> list[Result]:
    world, first, pilots, plan = job
    if plan.tuning.sampler == "tpe":
        return _in_turn(world, first, pilots, plan)
    truth = truths(world, plan.tuning.trials, first)
    return [pilot(world, truth, first + i, plan) for i in range(pilots)]


def row(results: Iterable[Result]) -> str:
    """One row of the table."""
    rows = list(results)
    few = [r.held_few for r in rows if r.held_few is not None]
    at_few = f"{share(map(bool, few))} of {len(few)}"
    return " | ".join((*coverage(rows), at_few, *outcomes(rows)))


HEAD = (
    "| world | saving | pilots | coverage | without the choice | coverage at 4 trials | go | no-go "
    "| bias | half width | without the choice |\n" + "|---" * 11 + "|"
)


def main() -> None:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=40, help="of each kind and saving")
    parser.add_argument("--pilots", type=int, default=3, help="of each world")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--savings", type=float, nargs="*", default=list(SAVINGS))
    parser.add_argument("--sampler", choices=("halton", "tpe"), default="halton")
    parser.add_argument("--draw", default="", help="another text draws other worlds")
    args = parser.parse_args()
    print(HEAD)
    with ProcessPoolExecutor(args.workers) as pool:
        for kind in args.kinds:
            names, trials, *_ = KINDS[kind]
            tuning = TuningPlan(over=OVER[:names], trials=trials, sampler=args.sampler)
            plan = replace(plan_of(), tuning=tuning)
            for saving in args.savings:
                drawn = enumerate(worlds(kind, saving, args.worlds, args.draw))
                jobs = [(world, i * args.pilots, args.pilots, plan) for i, world in drawn]
                found = [r for part in pool.map(_several, jobs) for r in part]
                print(f"| {kind} | {saving:.0%} | {row(found)} |", flush=True)


if __name__ == "__main__":
    main()

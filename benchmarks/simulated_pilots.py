"""Whole pilots with a known truth: agenda, search, fit, ladder, interval, rule; no part left out.

``python -m benchmarks.simulated_pilots`` prints the tables of docs/statistics.md. A world says what
every run's loss is; the pilot asks for runs until it has finished, as ``mars pilot`` does.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Protocol

from mars_optim.experiment.analysis import Verdict
from mars_optim.experiment.analysis.arm_model import ArmResult
from mars_optim.experiment.analysis.arm_results import arm_results
from mars_optim.experiment.analysis.comparison import comparison
from mars_optim.experiment.analysis.verdict import decide
from mars_optim.experiment.pilot.agenda import agenda
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.comparison import ComparisonPlan
from mars_optim.experiment.plan.plan_file import BUILT_IN, make_plan
from mars_optim.experiment.plan.task import GptPlan
from mars_optim.experiment.plan.training import TrainingPlan
from mars_optim.experiment.plan.tuning import TuningPlan
from mars_optim.experiment.records import Outcome, Run

STEPS = 1000
SLOPE = 0.4
"""Fall of the baseline's loss in nats per unit of log tokens, at the common budget."""
BEND = 0.3
"""Exponent of tokens in the loss."""
LEVEL = 0.02
"""Standard deviation of what a seed adds to all its runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Properties of the simulated runs.

    Args:
        effect: true log token ratio of the candidate at its best rate to the baseline at its own.
        optimum: log2 of each arm's best rate over its published one.
        curvature: nats at one octave below the best rate.
        ratio: how many times as steep the loss is above it.
        noise: standard deviation of one run, in nats.
        shape: "parabola"; "smooth" (ratio is reached at one octave); "cusp" (exponent 1.5);
            "cliff" (diverges from 1.2 octaves above the best on); "stuck" (stays 6 nats above the
            lowest loss from there on); "shelf" (levels off 1 nat above it on both sides).
        shared: share of a run's noise variance that all branches of one trunk have in common.
        drift: octaves by which each arm's best rate moves for twice the steps.
        bend: exponent of tokens in the loss.
        of_arm: share of a run's noise variance that all runs of its arm and seed have in common.
    """

    effect: float
    optimum: tuple[float, float]
    curvature: float
    ratio: float
    noise: float
    shape: str = "parabola"
    shared: float = 0.0
    drift: tuple[float, float] = (0.0, 0.0)
    bend: float = BEND
    of_arm: float = 0.0

    def height(self, octaves: float) -> float | None:
        """Loss above the lowest, this far from the best rate; None where runs diverge."""
        d, ratio = abs(octaves), self.ratio
        if self.shape == "cliff" and octaves > 1.2:
            return None
        if self.shape == "stuck" and octaves > 1.2:
            return 6.0
        if self.shape == "smooth":
            ratio = ratio ** min(d, 3.0)
        rise: float = self.curvature * d ** (1.5 if self.shape == "cusp" else 2.0)
        rise = rise * ratio if octaves > 0 else rise
        return -math.expm1(-rise) if self.shape == "shelf" else rise


@dataclass(slots=True)
class Losses:
    """A world's losses of one pilot; the same run has the same loss whenever it is asked for."""

    world: World
    plan: Plan
    seed: int

    def __call__(self, spec: RunSpec) -> float | None:
        """The final loss of a run; None if it diverges."""
        is_candidate = spec.arm_name == self.plan.comparison.candidate
        own = math.log2(spec.lr / spec.arm.lr) - self.world.optimum[is_candidate]
        own -= self.world.drift[is_candidate] * math.log2(spec.steps / STEPS)
        height = self.world.height(own)
        if height is None:
            return None
        tokens = math.log(spec.steps / STEPS) + (self.world.effect if is_candidate else 0.0)
        key = f"{self.seed} {spec.arm_name} {spec.seed} {spec.steps} {spec.lr!r}"
        level = random.Random(f"{self.seed} {spec.seed}").gauss(0.0, LEVEL)
        noise = random.Random(key).gauss(0.0, self.world.noise)
        if spec.trunk:
            noise = self._mixed(noise, self.world.shared, spec.trunk)
        noise = self._mixed(noise, self.world.of_arm, f"{spec.arm_name} {spec.seed}")
        bend = self.world.bend
        return 3.0 + SLOPE / bend * math.exp(-bend * tokens) + height + level + noise

    def _mixed(self, noise: float, share: float, key: str) -> float:
        """The noise with this share of its variance from a source that the key names."""
        if not share:
            return noise
        common = random.Random(f"{self.seed} {key}").gauss(0.0, self.world.noise)
        return math.sqrt(1.0 - share) * noise + math.sqrt(share) * common


def plan_of(pairs: int = 5, *, trunk: bool = False, **tuning: object) -> Plan:
    """The default pilot with two arms; with trunks, if these are wanted."""
    return Plan(
        arms=("adamw", "mars-adamw"),
        task=GptPlan(),
        training=TrainingPlan(steps=STEPS, decay="wsd" if trunk else "linear", trunk=trunk),
        tuning=TuningPlan(**tuning),  # type: ignore[arg-type]
        comparison=ComparisonPlan(seeds=tuple(range(1, pairs + 1))),
    )


def carry_out(plan: Plan, loss: Callable[[RunSpec], float | None]) -> list[Run]:
    """All runs of one pilot, as the agenda asks for them."""
    return made_by(plan, lambda spec: _finished(spec, loss(spec)))


def made_by(plan: Plan, run: Callable[[RunSpec], Run]) -> list[Run]:
    """As :func:`carry_out`, of whole runs."""
    runs: list[Run] = []
    while not (now := agenda(plan, "data", runs)).finished:
        runs += [run(spec) for spec in now.ready]
    return runs


def _finished(spec: RunSpec, loss: float | None) -> Run:
    outcome = Outcome(
        status="diverged" if loss is None else "finished",
        final_loss=loss,
        steps=spec.steps,
        tokens=spec.steps * 512,
        seconds=1.0,
        parameters=1,
        state_bytes=8,
    )
    return Run(path=Path(spec.run_id), spec=spec, outcome=outcome, environment={})


def judge(plan: Plan, runs: Iterable[Run]) -> tuple[ArmResult, ArmResult, Verdict]:
    """Baseline, candidate and verdict, as the report has them."""
    at = comparison(plan, plan.sizes()[0], runs)
    arms = arm_results(at, {})
    baseline, candidate = arms[plan.comparison.baseline], arms[plan.comparison.candidate]
    return baseline, candidate, decide(plan, baseline, candidate, at.open)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One pilot: what it said and what it took."""

    held: bool
    held_here: bool
    decision: str
    error: float
    width: float
    width_here: float
    trials: int


def pilot(world: World, seed: int, plan: Plan) -> Result:
    """Carry out one pilot and judge it."""
    runs = carry_out(plan, Losses(world, plan, seed))
    _, candidate, verdict = judge(plan, runs)
    found, here = candidate.log_ratio, candidate.log_ratio_here
    assert found is not None
    assert here is not None
    return Result(
        held=found.low <= world.effect <= found.high,
        held_here=here.low <= world.effect <= here.high,
        decision=verdict.decision,
        error=found.mean - world.effect,
        width=(found.high - found.low) / 2,
        width_here=(here.high - here.low) / 2,
        trials=sum(r.spec.purpose == "tune" for r in runs),
    )


KINDS: dict[str, dict[str, object]] = {
    "flat, quiet": dict(curvature=(0.004, 0.008), noise=(0.0008, 0.002)),
    "flat, noisy": dict(curvature=(0.004, 0.008), noise=(0.005, 0.02)),
    "middling": dict(curvature=(0.02, 0.08), noise=(0.002, 0.01)),
    "steep, quiet": dict(curvature=(0.2, 0.5), noise=(0.002, 0.005)),
    "steep, noisy": dict(curvature=(0.2, 0.5), noise=(0.01, 0.03)),
}
"""Ranges from which worlds are drawn, log-uniform: nats at one octave, nats of a run."""

SHAPES = ("parabola", "smooth", "cliff", "stuck", "shelf")
SAVINGS = (-0.10, 0.0, 0.05, 0.20)
MIN_SAVING = 0.05
GROSS = 0.3
"""An error in log tokens from which on a result is one of another world."""


def worlds(
    kind: str, saving: float, number: int, shapes: Iterable[str], draw: str = ""
) -> Iterator[World]:
    """Worlds of a kind: positions between grid points, near starts and far ones.

    Args:
        kind: of :data:`KINDS`.
        saving: true share of tokens saved.
        number: of worlds.
        shapes: taken in turn.
        draw: other texts give other worlds.
    """
    rng, shapes = random.Random(f"{kind} {saving}{draw}"), tuple(shapes)

    def drawn(low: float, high: float) -> float:
        return math.exp(rng.uniform(math.log(low), math.log(high)))

    ranges = KINDS[kind]
    for i in range(number):
        reach = 5.0 if rng.random() < 0.25 else 1.5
        yield World(
            effect=-math.log1p(-saving),
            optimum=(rng.uniform(-reach, reach), rng.uniform(-reach, reach)),
            curvature=drawn(*ranges["curvature"]),  # type: ignore[misc]
            ratio=drawn(1.0, 3.0),
            noise=drawn(*ranges["noise"]),  # type: ignore[misc]
            shape=shapes[i % len(shapes)],
        )


def _several(job: tuple[list[World], int, Plan]) -> list[Result]:
    drawn, first, plan = job
    return [pilot(world, first + i, plan) for i, world in enumerate(drawn)]


def rates(results: Iterable[Result]) -> str:
    """One row of the table."""
    rows = list(results)
    trials = sum(r.trials for r in rows) / (2 * len(rows))
    gross = sum(abs(r.error) > GROSS for r in rows)
    return " | ".join((*coverage(rows), *outcomes(rows), f"{trials:.1f}", str(gross)))


class Told(Protocol):
    """Words of one pilot on a truth that is known."""

    @property
    def held(self) -> bool:
        """Whether the interval holds the truth."""

    @property
    def held_here(self) -> bool:
        """Whether it would without the choice of the settings in it."""

    @property
    def decision(self) -> str:
        """The verdict."""

    @property
    def error(self) -> float:
        """Standard error of the mean."""

    @property
    def width(self) -> float:
        """Half of the interval."""

    @property
    def width_here(self) -> float:
        """Half of the one without the choice."""


def share(hits: Iterable[bool]) -> str:
    """How many of these, in per cent."""
    values = list(hits)
    return f"{sum(values) / len(values):.1%}" if values else "none"


def coverage(rows: Sequence[Told]) -> tuple[str, ...]:
    """Cells of a table: pilots, and how many intervals hold the truth."""
    return str(len(rows)), share(r.held for r in rows), share(r.held_here for r in rows)


def outcomes(rows: Sequence[Told]) -> tuple[str, ...]:
    """Cells of a table: verdicts, bias and widths."""
    return (
        share(r.decision == "go" for r in rows),
        share(r.decision == "no-go" for r in rows),
        f"{fmean(r.error for r in rows):+.4f}",
        f"{fmean(r.width for r in rows):.3f}",
        f"{fmean(r.width_here for r in rows):.3f}",
    )


HEAD = (
    "| world | saving | pilots | coverage | without the choice | go | no-go | bias | half width "
    "| without the choice | trials an arm | gross |\n" + "|---" * 12 + "|"
)


def main() -> None:
    """Print the tables, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pilots", type=int, default=1000, help="of each kind and saving")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--built-in", action="store_true", help="the built-in plan, with its looks")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--more-seeds", type=int, nargs="*", default=[])
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES))
    parser.add_argument("--draw", default="", help="another text draws other worlds")
    parser.add_argument("--savings", type=float, nargs="*", default=list(SAVINGS))
    args = parser.parse_args()
    if args.built_in:
        plan = make_plan({**BUILT_IN, "training": {"steps": STEPS}})
    else:
        plan = plan_of(args.pairs, more_seeds=tuple(args.more_seeds))
    print(HEAD)
    with ProcessPoolExecutor(args.workers) as pool:
        for kind in args.kinds:
            for saving in args.savings:
                drawn = list(worlds(kind, saving, args.pilots, args.shapes, args.draw))
                parts = [(drawn[i : i + 25], i, plan) for i in range(0, len(drawn), 25)]
                found = [r for part in pool.map(_several, parts) for r in part]
                print(f"| {kind} | {saving:.0%} | {rates(found)} |", flush=True)


if __name__ == "__main__":
    main()

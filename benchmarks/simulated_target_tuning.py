"""Whole pilots that tune more than the rate and are judged by the tokens to a target.

``python -m benchmarks.simulated_target_tuning`` prints the table of docs/statistics.md. Worlds are
those of :mod:`.simulated_tuning`, their nats turned into log tokens: an arm's settings make all of
its accuracies late. Trials that miss the target are censored, as the pilot has it. The truth is
what tuning by as many trials gives in the mean over many designs and noises.
"""

from __future__ import annotations

import argparse
import math
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats.qmc import Halton

from benchmarks.simulated_pilots import STEPS, coverage, made_by, outcomes, plan_of
from benchmarks.simulated_tuning import (
    FEW,
    KINDS,
    OVER,
    Floats,
    Result,
    World,
    height_of,
    result,
    worlds,
)
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.decision import DecisionPlan
from mars_optim.experiment.plan.task import ImagesPlan
from mars_optim.experiment.plan.tuning import TuningPlan
from mars_optim.experiment.records import Outcome, Run
from mars_optim.experiment.records.metric import judged

LATE = 4.0
"""Log tokens for each nat of the worlds."""
LEVEL = 0.1
"""Standard deviation in log tokens of what a seed adds to all its runs."""
TARGETS = {"most trials reach it": -1.2, "trials miss it": -0.3, "runs miss it": -0.05}
"""Log share of a run's length at which a run at its best settings reaches the target."""
TRUTHS = 400
EVALUATIONS = 20


@dataclass(slots=True)
class Curves:
    """A world's runs of one pilot; the same run has the same curve whenever it is asked for."""

    world: World
    plan: Plan
    seed: int

    def __call__(self, spec: RunSpec) -> Run:
        """A whole run."""
        ahead = self.world.effect * (spec.arm_name == self.plan.comparison.candidate)
        luck = luck_of(self.seed, spec, self.world.noise)
        late = LATE * height_of(self.world, self.plan, spec) - ahead + luck
        return curve(spec, late)


def luck_of(pilot: int, spec: RunSpec, noise: float) -> float:
    """Log tokens by which a seed and a run are late; the same whenever it is asked for."""
    level = random.Random(f"{pilot} {spec.seed}").gauss(0.0, LEVEL)
    return level + random.Random(f"{pilot} {spec.run_id}").gauss(0.0, LATE * noise)


def curve(spec: RunSpec, late: float | None) -> Run:
    """A whole run whose accuracy is ``late`` log tokens behind; None for one that diverged."""
    rows = []
    for i in range(1, EVALUATIONS + 1):
        step = round(spec.steps * i / EVALUATIONS)
        value = 0.0 if late is None else 0.6 + 0.2 * (math.log(step / STEPS) - late)
        at = dict(step=step, tokens=512 * step, seconds=1.0, valid_loss=1.0)
        rows.append({**at, "accuracy": value})
    outcome = Outcome(
        status="finished" if late is not None else "diverged",
        final_loss=1.0 if late is not None else None,
        steps=spec.steps,
        tokens=512 * spec.steps,
        seconds=1.0,
        parameters=1000,
        state_bytes=8000,
        scores={"accuracy": value} if late is not None else {},
    )
    rows = rows if late is not None else []
    return Run(path=Path(spec.run_id), spec=spec, outcome=outcome, environment={}, rows=rows)


def truth(world: World, trials: int, seed: int) -> float:
    """Mean log ratio of the times of two arms that are tuned by so many trials."""
    rng, names = np.random.default_rng(seed), world.rise.size
    found = []
    for _ in range(TRUTHS):
        drawn = Halton(names, scramble=True, rng=rng).random(trials - 1)
        places = np.vstack([np.full(names, 0.5), drawn])
        late: Floats = LATE * np.array([world.height(arm, places) for arm in (0, 1)])
        seen = late + rng.normal(0.0, LATE * world.noise, late.shape)
        base, arm = (late[a, np.argmin(seen[a])] for a in (0, 1))
        found.append(world.effect + base - arm)
    return float(np.mean(found))


def target_plan(names: int, trials: int, place: float) -> Plan:
    """The default pilot with two arms, judged by its way to an accuracy."""
    plan = plan_of()
    return replace(
        plan,
        task=ImagesPlan(corpus="pictures"),
        training=replace(plan.training, evaluations=EVALUATIONS),
        tuning=TuningPlan(over=OVER[:names], trials=trials),
        decision=DecisionPlan(metric="accuracy", direction="up", target=0.6 + 0.2 * place),
    )


def _several(job: tuple[World, int, int, Plan]) -> list[Result | None]:
    world, first, pilots, plan = job
    true, found = truth(world, plan.tuning.trials, first), []
    for i in range(pilots):
        mine = replace(plan, tuning=replace(plan.tuning, seed=1000 + first + i))
        runs = made_by(mine, Curves(world, mine, first + i))
        costs = [judged(run, mine.decision) for run in runs]
        found.append(result(mine, costs, {FEW: math.nan, mine.tuning.trials: true}))
    return found


HEAD = (
    "| world | target | saving | told | coverage | without the choice | go | no-go | bias "
    "| half width | without the choice |\n" + "|---" * 11 + "|"
)


def main() -> None:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=25, help="of each kind and target")
    parser.add_argument("--pilots", type=int, default=3, help="of each world")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--kinds", nargs="*", default=["2 names, quiet", "2 names, noisy"])
    parser.add_argument("--targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--draw", default="", help="another text draws other worlds")
    parser.add_argument("--saving", type=float, default=0.05)
    args = parser.parse_args()
    print(HEAD)
    with ProcessPoolExecutor(args.workers) as pool:
        for kind in args.kinds:
            for name in args.targets:
                plan = target_plan(*KINDS[kind][:2], TARGETS[name])
                drawn = enumerate(worlds(kind, args.saving, args.worlds, args.draw))
                jobs = [(world, i * args.pilots, args.pilots, plan) for i, world in drawn]
                made = [r for part in pool.map(_several, jobs) for r in part]
                rows = [r for r in made if r]
                number, *held = coverage(rows)
                cells = (f"{number} of {len(made)}", *held, *outcomes(rows))
                print(f"| {kind} | {name} | {args.saving:.0%} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""Teams of pilots with a known truth: do the intervals of performance profiles hold it?

``python -m benchmarks.simulated_jobs`` prints a table like that of docs/statistics.md.
Every pilot is carried out in whole: search for each arm's rate, pairs, ladder, then the profiles.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mars_optim.experiment.analysis.arm_results import arm_results
from mars_optim.experiment.analysis.comparison import comparison
from mars_optim.experiment.analysis.profiles import Costs, Profile
from mars_optim.experiment.plan import Plan, RunSpec

from .simulated_pilots import BEND, LEVEL, SLOPE, STEPS, World, carry_out, plan_of

ARMS = ("adamw", "nadamw", "nadamw-auto", "mars-adamw")
TAUS = (1.01, 1.02, 1.05, 1.1, 1.25)
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Team:
    """Properties of a team's jobs.

    Args:
        jobs: pilots.
        pairs: seeds of each.
        spread: standard deviation over arms of the true log cost; 0 for arms that are all equal.
        noise: standard deviation of one run, in nats.
    """

    jobs: int
    pairs: int
    spread: float
    noise: float


TEAMS = (
    Team(3, 3, 0.1, 0.005),
    Team(3, 5, 0.1, 0.005),
    Team(3, 5, 0.05, 0.01),
    Team(3, 5, 0.0, 0.01),
    Team(8, 5, 0.0, 0.01),
    Team(8, 5, 0.05, 0.01),
)


def job(team: Team, plan: Plan, rng: random.Random, seed: int) -> tuple[list[float], Costs]:
    """True log costs of one job's arms, and what its pilot finds."""
    true = [0.0, *(rng.gauss(0.0, team.spread) for _ in ARMS[1:])]
    worlds = [
        World(
            effect=-cost,
            optimum=(rng.uniform(-1.5, 1.5),) * 2,
            curvature=0.05,
            ratio=1.5,
            noise=team.noise,
        )
        for cost in true
    ]

    def loss(spec: RunSpec) -> float:
        world = worlds[ARMS.index(spec.arm_name)]
        height = world.height(math.log2(spec.lr / spec.arm.lr) - world.optimum[0])
        assert height is not None
        tokens = math.log(spec.steps / STEPS) + world.effect
        level = random.Random(f"{seed} {spec.seed}").gauss(0.0, LEVEL)
        key = f"{seed} {spec.arm_name} {spec.seed} {spec.steps} {spec.lr!r}"
        noise = random.Random(key).gauss(0.0, world.noise)
        return 3.0 + SLOPE / BEND * math.exp(-BEND * tokens) + height + level + noise

    at = comparison(plan, plan.sizes()[0], carry_out(plan, loss))
    return true, Costs.of(list(arm_results(at, {}).values()), seed)


def study(team: Team, number: int) -> str:
    """One row of the table."""
    rng = random.Random(repr(team))
    plan = replace(plan_of(team.pairs), arms=ARMS)
    low = high = width = total = 0.0
    for i in range(number):
        made = [job(team, plan, rng, 1000 * i + j) for j in range(team.jobs)]
        truths, costs = [true for true, _ in made], [found for _, found in made]
        for k, arm in enumerate(ARMS):
            profile = Profile(arm, tuple(c.evidence(arm) for c in costs), CONFIDENCE)
            for tau in TAUS:
                share = _share(truths, k, tau)
                ends = profile.ends(tau)
                low += share < ends[0] - 1e-9
                high += share > ends[1] + 1e-9
                width += ends[1] - ends[0]
                total += 1
    held = f"{1 - (low + high) / total:.1%} | {low / total:.1%} | {high / total:.1%}"
    head = f"{team.jobs} | {team.pairs} | {team.spread:g} | {team.noise:g} | {number}"
    return f"| {head} | {held} | {width / total:.2f} |"


def _share(truths: Sequence[Sequence[float]], arm: int, tau: float) -> float:
    """True share of the jobs in which the arm is within ``tau`` of the best."""
    hits = [true[arm] - min(true) <= math.log(tau) + 1e-12 for true in truths]
    return sum(hits) / len(hits)


def main() -> None:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teams", type=int, default=100, help="of each kind")
    args = parser.parse_args()
    print("| jobs | pairs | spread | noise | teams | coverage | below | above | mean width |")
    print("|---" * 9 + "|")
    for team in TEAMS:
        print(study(team, args.teams), flush=True)


if __name__ == "__main__":
    main()

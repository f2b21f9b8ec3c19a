"""Decisions of others' protocols on our simulated worlds, beside the pilot's designs.

``python -m benchmarks.rival_designs`` prints the table of docs/statistics.md. The question is the
pilot's: does the candidate save at least ``decision.min_saving`` of the baseline's tokens? Rivals
have no interval, so they say go or no-go each time. They are favoured: a run that goes on to the
next rung costs the difference only and has the loss of a schedule of its own length, and losses are
turned into tokens by the true curve.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import optuna

from mars_optim.experiment.pilot.tuning import spec_of
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.decision import DecisionPlan
from mars_optim.experiment.plan.plan_file import BUILT_IN, make_plan

from . import output
from .decision import LEAST
from .simulated_pilots import (
    BEND,
    KINDS,
    SHAPES,
    SLOPE,
    STEPS,
    Losses,
    World,
    carry_out,
    judge,
    plan_of,
    worlds,
)
from .table import markdown

OCTAVES = 4.0  # on both sides of an arm's published rate
RUNGS = (125, 250, 500, 1000)
STUDIES, TRIALS = 5, 5  # AlgoPerf's, external tuning
HEADER = ("saving", "design", "go", "no-go", "wrong", "budgets in all")


class Told(NamedTuple):
    """Decision of a design, and the budgets it spent, tuning and ladder included."""

    decision: str
    budgets: float


Design = Callable[[World, int], Told]


def ours(plan: Plan) -> Design:
    """The pilot itself."""

    def told(world: World, seed: int) -> Told:
        runs = carry_out(plan, Losses(world, plan, seed))
        _, _, verdict = judge(plan, runs)
        return Told(verdict.decision, sum(r.spec.steps for r in runs) / STEPS)

    return told


class Rival:
    """Losses of runs at rates that a rival chooses itself."""

    def __init__(self, world: World, seed: int) -> None:
        self.plan = plan_of()
        self.losses = Losses(world, self.plan, seed)

    def loss(self, arm: str, octave: float, seed: int, steps: int = STEPS) -> float:
        """The final loss at 2^octave times the arm's published rate; 10 where it diverges."""
        spec = spec_of(
            self.plan,
            self.plan.sizes()[0],
            "data",
            purpose="compare",
            arm_name=arm,
            lr=self.plan.arm[arm].lr * 2.0**octave,
            seed=seed,
            steps=steps,
        )
        found = self.losses(spec)
        return 10.0 if found is None else found

    def saving(self, baseline: float, candidate: float) -> float:
        """Share of tokens saved, by the baseline's true curve: -SLOPE exp(-BEND x) is its fall."""
        rest = 1.0 - BEND / SLOPE * (baseline - candidate)
        return 1.0 - math.exp(math.log(max(rest, 1e-9)) / BEND)


def by_saving(rival: Rival, baseline: float, candidate: float) -> str:
    """The rule without an interval."""
    return "go" if rival.saving(baseline, candidate) > LEAST else "no-go"


def halving(budgets: float) -> Design:
    """Optuna's asynchronous successive halving over arm and rate, within a budget."""

    def told(world: World, seed: int) -> Told:
        rival, spent = Rival(world, seed), 0.0
        best = dict.fromkeys(rival.plan.arms, math.inf)
        study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
        )
        while spent < budgets:
            trial = study.ask()
            arm = trial.suggest_categorical("arm", list(best))
            octave = trial.suggest_float("octave", -OCTAVES, OCTAVES)
            loss, before = math.inf, 0
            for rung, steps in enumerate(RUNGS, 1):
                loss = rival.loss(arm, octave, seed=0, steps=steps)
                spent, before = spent + (steps - before) / STEPS, steps
                trial.report(loss, rung)
                if trial.should_prune():
                    break
            else:
                best[arm] = min(best[arm], loss)
            study.tell(trial, loss)
        return Told(by_saving(rival, *best.values()), spent)

    return told


def algoperf(world: World, seed: int) -> Told:
    """AlgoPerf's external tuning: the median over studies of the best of a few random trials."""
    rival, rng = Rival(world, seed), random.Random(f"algoperf {seed}")
    savings = []
    for study in range(STUDIES):
        best = [
            min(rival.loss(arm, rng.uniform(-OCTAVES, OCTAVES), study) for _ in range(TRIALS))
            for arm in rival.plan.arms
        ]
        savings.append(rival.saving(*best))
    decision = "go" if statistics.median(savings) > LEAST else "no-go"
    return Told(decision, float(STUDIES * TRIALS * len(rival.plan.arms)))


def designs() -> dict[str, Design]:
    """By name; successive halving gets what a pilot spends, about."""
    before, every = plan_of(5), replace(plan_of(10), decision=DecisionPlan(looks="every-pair"))
    world = {"arms": list(before.arms), "training": {"steps": STEPS}}
    return {
        "pilot, 5 pairs": ours(before),
        "pilot, every pair to 10": ours(every),
        "pilot, built-in plan": ours(make_plan({**BUILT_IN, **world})),
        "successive halving": halving(45.0),
        "AlgoPerf's median of studies": algoperf,
    }


def row(name: str, saving: float, found: Sequence[Told]) -> list[str]:
    """Shares in per cent with their standard errors."""
    wrong = "go" if saving <= LEAST else "no-go"

    def share(decision: str) -> str:
        p = sum(told.decision == decision for told in found) / len(found)
        return f"{100 * p:.1f} ± {100 * math.sqrt(p * (1 - p) / len(found)):.1f}"

    mean = sum(told.budgets for told in found) / len(found)
    return [f"{saving:.0%}", name, share("go"), share("no-go"), share(wrong), f"{mean:.1f}"]


def main(arguments: list[str]) -> None:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rival_designs")
    parser.add_argument("--pilots", type=int, default=200, help="a row (default: %(default)s)")
    parser.add_argument("--savings", type=float, nargs="*", default=[-0.1, 0.0, 0.05, 0.1, 0.2])
    parser.add_argument("--designs", nargs="*", default=list(designs()))
    args = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    each = math.ceil(args.pilots / len(KINDS))
    rows = []
    for saving in args.savings:
        drawn = [w for k in KINDS for w in worlds(k, saving, each, SHAPES, "rivals")]
        for name in args.designs:
            design = designs()[name]
            rows.append(row(name, saving, [design(w, i) for i, w in enumerate(drawn)]))
            print(rows[-1], flush=True)
    print(markdown(HEADER, rows))


if __name__ == "__main__":
    output.run(main)

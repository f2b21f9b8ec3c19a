"""Looks at every pair with a target: whole pilots of known truth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.looks_at_targets import Curves, pilot, target_plan
from benchmarks.simulated_pilots import World, judge, made_by
from mars_optim.experiment.analysis.arm_model import ArmResult, SeedResult
from mars_optim.experiment.analysis.looks import confidence_at
from mars_optim.experiment.analysis.stats import shifted
from mars_optim.experiment.analysis.survival import Times, ratio_interval
from mars_optim.experiment.analysis.target import Reach
from mars_optim.experiment.analysis.target_findings import may_be_told
from mars_optim.experiment.analysis.verdict import Verdict
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.records import Run

WORLD = World(effect=0.5, optimum=(0.3, -0.2), curvature=0.05, ratio=1.5, noise=0.003)
EVERY = target_plan(-0.7, 8, "every-pair")


def seeds_of(plan: Plan, world: World = WORLD, seed: int = 0) -> set[int]:
    runs = made_by(plan, Curves(world, plan, seed))
    return {r.spec.seed for r in runs if r.spec.purpose == "compare"}


def test_a_clear_effect_ends_the_pilot_at_three_pairs():
    runs = made_by(EVERY, Curves(WORLD, EVERY, 0))
    _, candidate, verdict = judge(EVERY, runs)
    assert verdict.decision == "go"
    assert {r.spec.seed for r in runs if r.spec.purpose == "compare"} == {1, 2, 3}
    assert candidate.log_ratio is not None
    assert candidate.log_ratio.confidence == confidence_at(0.95, 3) > 0.95


@pytest.mark.slow
def test_at_the_least_saving_more_pairs_are_asked_for():
    world = replace(WORLD, effect=-math.log1p(-0.05))
    assert max(len(seeds_of(EVERY, world, seed)) for seed in range(4)) > 3


def test_a_target_that_nobody_reaches_ends_it_at_once():
    plan = target_plan(2.0, 8, "every-pair")
    runs = made_by(plan, Curves(WORLD, plan, 0))
    *_, verdict = judge(plan, runs)
    assert [found.code for found in verdict.findings] == ["target.nobody"]
    assert seeds_of(plan) == {1, 2, 3}


@pytest.mark.slow
def test_too_few_whole_pairs_are_no_reason_to_stop():
    plan = target_plan(0.0, 8, "every-pair")
    world = replace(WORLD, effect=0.0)
    told = [pilot(plan, world, seed) for seed in range(6)]
    once = [pilot(target_plan(0.0, 3, "once"), world, seed) for seed in range(6)]
    assert sum(one.told for one in told) > sum(one.told for one in once)
    assert max(one.pairs for one in told) > 3


def interim(runs: list[Run], reached: tuple[bool, bool, bool]) -> Verdict:
    """The verdict on three pairs; of the pairs marked False the candidate misses the target."""
    kept = []
    for run in runs:
        place = run.spec.seed - 1
        missed = run.spec.purpose == "compare" and run.spec.arm_name == "mars-adamw"
        if run.spec.purpose == "compare" and missed and not reached[place]:
            run = replace(run, rows=[{**row, "valid_loss": 9.0} for row in run.rows])
        kept.append(run)
    return judge(EVERY, kept)[2]


@pytest.mark.parametrize("reached", [(False, False, True), (True, True, False)])
def test_an_open_verdict_that_waits_for_whole_pairs_says_so(reached: tuple[bool, bool, bool]):
    verdict = interim(made_by(EVERY, Curves(WORLD, EVERY, 0)), reached)
    assert verdict.decision == "not-enough-runs"
    assert "reason.next-pair" in [found.code for found in verdict.reasons]


def test_a_target_reached_before_the_first_token_is_no_crash():
    runs = [
        replace(run, rows=[{**run.rows[0], "step": 0, "tokens": 0, "valid_loss": -9.0}, *run.rows])
        for run in made_by(EVERY, Curves(WORLD, EVERY, 0))
    ]
    *_, verdict = judge(EVERY, runs)
    assert [found.code for found in verdict.findings] == ["target.at-start"]


def pairs(whole: int, missed: int) -> tuple[ArmResult, ArmResult]:
    def arm(name: str, reached: list[bool]) -> ArmResult:
        seeds = tuple(
            SeedResult(
                seed=i,
                loss=1.0,
                difference=0.0,
                reading=None,
                log_ratio=None,
                reach=Reach(tokens=1.0, steps=1.0, seconds=1.0, reached=there),
            )
            for i, there in enumerate(reached)
        )
        return replace(BARE, name=name, seeds=seeds)

    return arm("base", [True] * (whole + missed)), arm("new", [True] * whole + [False] * missed)


BARE = judge(EVERY, made_by(EVERY, Curves(WORLD, EVERY, 0)))[0]


@pytest.mark.parametrize(
    ("whole", "missed", "most", "hopeful"),
    [
        (3, 5, 8, True),  # enough as it is
        (2, 1, 8, True),
        (1, 2, 8, True),
        (0, 3, 20, True),
        (0, 6, 8, False),  # two more cannot be three
        (0, 12, 15, False),
    ],
)
def test_pairs_are_added_while_three_may_become_whole(
    whole: int, missed: int, most: int, hopeful: bool
):
    assert may_be_told(*pairs(whole, missed), most) is hopeful


def test_a_models_interval_is_wider_at_an_early_look():
    base = np.array([-0.3, -0.25, -0.2, -0.15, -0.12, 0.0])
    cand = np.array([-0.4, -0.31, -0.35, -0.2, -0.3, -0.15])
    times = Times(base, cand, base == 0.0, np.zeros(6, bool))
    once, look = (ratio_interval(times, level)[0] for level in (0.95, confidence_at(0.95, 6)))
    assert once is not None
    assert look is not None
    assert look.low < once.low < once.high < look.high


@pytest.mark.parametrize("level", [0.95, 0.999, 0.99998])
def test_a_tiny_shift_leaves_a_models_interval_as_it_is(level: float):
    base = np.array([-0.3, -0.25, -0.2, -0.15, -0.12, -0.2, -0.28, 0.0])
    cand = np.array([-0.4, -0.31, -0.35, -0.2, -0.3, -0.4, -0.35, -0.15])
    times = Times(base, cand, base == 0.0, np.zeros(8, bool))
    alone, _ = ratio_interval(times, level)
    assert alone is not None
    moved = shifted(alone, 1e-4 * np.linspace(-1.0, 1.0, 64))
    assert (moved.low, moved.high) == pytest.approx((alone.low, alone.high), abs=1e-4)
    further = shifted(alone, 0.3 + 1e-4 * np.linspace(-1.0, 1.0, 64))
    assert further.low == pytest.approx(alone.low + 0.3, abs=1e-4)

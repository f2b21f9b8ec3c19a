"""With trunks the candidate has a ladder, too, and a saving is read off both."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.simulated_ladders import BUDGETS, Truth
from benchmarks.simulated_trunks import read_both
from mars_optim.experiment.analysis.arm_model import ArmResult
from mars_optim.experiment.analysis.arm_results import arm_results
from mars_optim.experiment.analysis.comparison import comparison
from mars_optim.experiment.analysis.ladder import LadderReading, both_ways, tokens_to_reach
from mars_optim.experiment.analysis.verdict import decide
from mars_optim.experiment.plan import RunSpec
from mars_optim.experiment.records import Run
from tests.support.pretend import carry_out, finish, small_plan

WHOLE = small_plan(ladder=(0.5, 0.75, 1.5), seeds=(1, 2, 3))
PLAN = replace(WHOLE, training=replace(WHOLE.training, decay="wsd", trunk=True))
UNIT = PLAN.training.steps


def law(spec: RunSpec, effect: float, *, slope: float = 0.5) -> float:
    """A straight line in log tokens; the candidate gets as far with exp(-effect) of them."""
    log_tokens = math.log(spec.steps / UNIT) + (spec.arm_name == "mars-adamw") * effect
    valley = 0.05 * math.log2(spec.lr / spec.arm.lr) ** 2
    return 3.0 + 0.01 * spec.seed - slope * log_tokens + valley


def candidate_of(runs: list[Run]) -> ArmResult:
    return arm_results(comparison(PLAN, PLAN.sizes()[0], runs), {})["mars-adamw"]


def ratios(runs: list[Run]) -> list[float]:
    found = [s.log_ratio for s in candidate_of(runs).seeds]
    assert None not in found
    return [ratio for ratio in found if ratio is not None]


def shifted(runs: list[Run], which: tuple[str, int, int], by: float | None) -> list[Run]:
    """The runs, that of an arm, a seed and a number of steps with another loss."""

    def one(run: Run) -> Run:
        spec = run.spec
        here = (spec.arm_name, spec.seed, spec.steps) == which and spec.purpose != "tune"
        if not here or spec.branches or run.final_loss is None:
            return run
        return finish(spec, None if by is None else run.final_loss + by)

    return [one(run) for run in runs]


@pytest.mark.parametrize("effect", [-0.3, 0.0, 0.1, 0.35])
def test_a_saving_is_what_it_is_in_both_directions(effect: float):
    runs = carry_out(PLAN, lambda spec: law(spec, effect)).runs
    assert ratios(runs) == pytest.approx([effect] * 3, abs=0.002)


@pytest.mark.parametrize("effect", [0.6, -0.6])
def test_a_saving_beyond_one_ladder_is_read_off_the_other(effect: float):
    """AdamW's ladder ends at 1.5 budgets, 0.41 in log tokens; the candidate's begins at a half."""
    runs = carry_out(PLAN, lambda spec: law(spec, effect)).runs
    assert ratios(runs) == pytest.approx([effect] * 3, abs=0.002)
    assert not candidate_of(runs).bounds
    whole = carry_out(WHOLE, lambda spec: law(spec, 0.6)).runs
    at = comparison(WHOLE, WHOLE.sizes()[0], whole)
    assert arm_results(at, {})["mars-adamw"].bounds == {"at least"}


def test_beyond_both_ladders_the_stronger_bound_is_told():
    runs = carry_out(PLAN, lambda spec: law(spec, 0.9)).runs
    assert candidate_of(runs).bounds == {"at least"}
    assert ratios(runs) == pytest.approx([math.log(2.0)] * 3)
    runs = carry_out(PLAN, lambda spec: law(spec, -0.9)).runs
    assert candidate_of(runs).bounds == {"at most"}
    assert ratios(runs) == pytest.approx([-math.log(2.0)] * 3)


def test_each_seed_has_its_own_curves():
    """The luck that all runs of one trunk share moves its seed's number and no other."""
    runs = carry_out(PLAN, lambda spec: law(spec, 0.1)).runs
    for steps in (50, 75, 100, 150):
        runs = shifted(runs, ("adamw", 2, steps), 0.05)
    first, second, third = ratios(runs)
    assert second == pytest.approx(0.1 + 0.05 / 0.5, abs=0.002)
    assert (first, third) == pytest.approx((0.1, 0.1), abs=0.002)


def test_both_readings_count_alike():
    runs = carry_out(PLAN, lambda spec: law(spec, 0.2)).runs
    moved = shifted(runs, ("mars-adamw", 1, 75), 0.01)  # below which the way back is read
    change = ratios(moved)[0] - 0.2
    assert -0.02 < change < -0.0005
    assert ratios(moved)[1:] == pytest.approx([0.2] * 2, abs=0.002)


def test_a_candidate_that_diverges_on_its_ladder_is_no_go():
    runs = carry_out(PLAN, lambda spec: law(spec, 0.3)).runs
    at = comparison(PLAN, PLAN.sizes()[0], shifted(runs, ("mars-adamw", 2, 150), None))
    arms = arm_results(at, {})
    assert arms["mars-adamw"].diverged == 1
    assert decide(PLAN, arms["adamw"], arms["mars-adamw"], at.open).decision == "no-go"
    lost = comparison(PLAN, PLAN.sizes()[0], shifted(runs, ("adamw", 2, 150), None))
    assert arm_results(lost, {})["adamw"].diverged == 0


READINGS = [
    ("both exact", LadderReading(120.0, ""), 2.5, 120.0, ""),
    ("only there", LadderReading(120.0, ""), 9.0, 120.0, ""),
    ("only back", LadderReading(150.0, "at least"), 2.5, 120.0, ""),
    ("beyond both", LadderReading(150.0, "at least"), 9.0, 240.0, "at least"),
    ("below both", LadderReading(70.0, "at most"), 1.0, 60.0, "at most"),
    ("against each other", LadderReading(150.0, "at least"), 1.0, 150.0, "at least"),
    ("nothing there", None, 2.5, 120.0, ""),
]


@pytest.mark.parametrize(
    ("there", "base", "tokens", "bound"), [r[1:] for r in READINGS], ids=[r[0] for r in READINGS]
)
def test_two_readings_become_one(
    there: LadderReading | None, base: float, tokens: float, bound: str
):
    unit = math.sqrt(120 * 100.0)  # so that a loss reached at 100 tokens is read back as 120
    own = [(50, 3.0), (100, 2.5), (200, 2.0)]
    assert both_ways(there, base, own, unit) == LadderReading(pytest.approx(tokens), bound)


def test_one_rung_of_the_arm_is_no_ladder():
    there = LadderReading(120.0, "")
    assert both_ways(there, 2.5, [(100, 2.5)], 100) == there


@given(effect=st.floats(-0.6, 0.6), slope=st.floats(0.05, 3.0))
def test_turning_the_comparison_round_turns_the_sign(effect: float, slope: float):
    rungs = [(tokens, 3.0 - slope * math.log(tokens / 100)) for tokens in (50, 75, 100, 150)]
    others = [(tokens, loss - slope * effect) for tokens, loss in rungs]
    here, there = rungs[2][1], others[2][1]
    one = both_ways(tokens_to_reach(rungs, there), here, others, 100)
    other = both_ways(tokens_to_reach(others, here), there, rungs, 100)
    assert one is not None
    assert other is not None
    assert math.log(one.tokens / 100) == pytest.approx(-math.log(other.tokens / 100), abs=1e-9)


def test_the_simulation_reads_as_the_pilot_does():
    rng, logs = np.random.default_rng(3), np.log(BUDGETS)
    truth = Truth(effect=0.3, noise=0.2)
    ladders = [truth.loss(logs + e) + 0.2 * rng.standard_normal((200, 4)) for e in (0.0, 0.3)]
    found = read_both(logs, *ladders)
    for ratio, base, own in zip(found, *ladders, strict=True):
        tokens = [round(1e9 * budget) for budget in BUDGETS]
        rungs, theirs = list(zip(tokens, base, strict=True)), list(zip(tokens, own, strict=True))
        there = tokens_to_reach(rungs, own[2])
        one = both_ways(there, base[2], theirs, 1e9)
        assert one is not None
        assert ratio == pytest.approx(math.log(one.tokens / 1e9), abs=1e-6)

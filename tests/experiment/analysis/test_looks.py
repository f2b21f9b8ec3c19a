"""A look at every pair: intervals that hold together, and a pilot that stops when it is clear."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.decision import spend
from benchmarks.simulated_pilots import World
from mars_optim.experiment.analysis.looks import FIRST, confidence_at, interval, p_value
from mars_optim.experiment.analysis.stats import pairs_needed, t_interval, t_quantile
from mars_optim.experiment.pilot.agenda import agenda
from mars_optim.experiment.pilot.price import price
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.decision import DecisionPlan
from tests.support.pretend import DATA, Valley, carry_out, finish, small_plan

EVERY = DecisionPlan(looks="every-pair")
MOST = 8
PLAN = small_plan(arms=("adamw", "mars-adamw"), seeds=tuple(range(1, MOST + 1)), decision=EVERY)


def noisy(plan: Plan, effect: float, noise: float) -> Valley:
    """Runs with a true effect in log tokens and noise in nats (0.1 nats a unit of log tokens)."""
    valley = Valley(plan)

    class Noisy(Valley):
        def __call__(self, spec: RunSpec) -> float | None:
            loss = valley(spec)
            assert loss is not None
            gain = 0.1 * effect if spec.arm_name == plan.comparison.candidate else 0.0
            return loss - gain + random.Random(spec.run_id).gauss(0.0, noise)

    return Noisy(plan)


def pairs_of(runs: list) -> int:
    return len({r.spec.seed for r in runs if r.spec.purpose == "compare"})


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_all_looks_together_hold_the_truth_at_their_level(confidence: float):
    paths, most = 40_000, 24  # beyond 20 by the union bound
    x = np.random.default_rng(1).standard_normal((paths, most))
    missed = np.zeros(paths, bool)
    for n in range(FIRST, most + 1):
        t = np.abs(x[:, :n].mean(axis=1)) * math.sqrt(n) / x[:, :n].std(axis=1, ddof=1)
        missed |= t > t_quantile(confidence_at(confidence, n), n)
    alpha = 1 - confidence
    error = 3.5 * math.sqrt(alpha * confidence / paths)
    assert 0.75 * alpha < missed.mean() < alpha + error


@given(confidence=st.sampled_from([0.8, 0.95, 0.99]), n=st.integers(FIRST, 60))
@settings(max_examples=25)
def test_a_look_asks_for_more_than_students_interval(confidence: float, n: int):
    assert confidence < confidence_at(confidence, n) < 1.0


def test_two_pairs_bound_nothing_when_every_pair_is_looked_at():
    found = interval([0.1, 0.1001], EVERY)
    assert found is not None
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert p_value(found, EVERY) == 1.0


def test_one_look_is_students_interval_as_before():
    values = [0.1, 0.2, 0.15]
    assert interval([*values, None], DecisionPlan()) == t_interval(values, 0.95)


def test_p_value_of_a_look_agrees_with_its_interval():
    values = [0.1, 0.12, 0.11, 0.1]
    found = interval(values, EVERY)
    assert found is not None
    assert p_value(found, EVERY) < 0.05
    assert found.low > 0
    assert p_value(found, EVERY) > p_value(found, DecisionPlan())


def test_a_clear_effect_ends_the_pilot_after_three_pairs():
    pilot = carry_out(PLAN, noisy(PLAN, effect=0.4, noise=0.0005))
    assert pairs_of(pilot.runs) == FIRST
    assert pilot.last.planned_runs == len(pilot.runs)


def test_an_open_verdict_adds_one_pair_at_a_time():
    loss, seen, runs = noisy(PLAN, effect=0.1, noise=0.003), set(), []
    while not (now := agenda(PLAN, DATA, runs)).finished:
        compared = {s.seed for s in now.ready if s.purpose == "compare"}
        if seen and compared:
            assert len(compared) == 1
        seen |= compared
        runs += [finish(spec, loss(spec)) for spec in now.ready]
    assert FIRST < pairs_of(runs) <= MOST


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), share=st.floats(0, 1), workers=st.integers(1, 5))
def test_a_stopped_pilot_goes_on_to_the_same_runs(seed: int, share: float, workers: int):
    loss = noisy(PLAN, effect=0.1, noise=0.003)
    whole = carry_out(PLAN, loss)
    order = random.Random(seed)
    part = whole.runs[: round(share * len(whole.runs))]
    again = carry_out(PLAN, loss, workers=workers, order=order, done=part)
    assert again.ids == whole.ids


def test_no_pair_is_added_where_all_would_hardly_decide():
    world = World(
        effect=-math.log1p(-0.05), optimum=(0.0, 0.0), curvature=0.02, ratio=1.0, noise=0.05
    )
    plan = replace(PLAN, training=replace(PLAN.training, steps=1000))
    stopped = [spend(plan, world, seed).pairs for seed in range(3)]
    assert min(stopped) < MOST


def test_a_best_rate_at_the_edge_adds_no_pairs():
    plan = replace(PLAN, tuning=replace(PLAN.tuning, trials=3, max_trials=3))
    far = Valley(plan, {"mars-adamw": 5.0})
    pilot = carry_out(plan, far)
    assert pairs_of(pilot.runs) == FIRST


def test_price_is_from_three_pairs_to_all():
    told, all_pairs = price(PLAN, None, workers=1), replace(PLAN, decision=DecisionPlan())
    assert told.runs[1] == price(all_pairs, None, workers=1).runs[1]
    assert told.runs[0] == len(carry_out(PLAN, Valley(PLAN)).runs)  # no spread: no evidence


def test_more_pairs_are_needed_if_every_one_is_looked_at():
    once = pairs_needed(0.1, 0.05, 0.0, 0.95)
    every = pairs_needed(0.1, 0.05, 0.0, lambda n: confidence_at(0.95, n))
    assert once is not None
    assert every is not None
    assert once < every < 3 * once

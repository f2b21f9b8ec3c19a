"""The tuning seed as a pair, by the fits of its trials."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.simulated_pilots import KINDS, Losses, World, carry_out, judge, worlds
from mars_optim.experiment.analysis.arm_results import arm_results
from mars_optim.experiment.analysis.causes import paired
from mars_optim.experiment.analysis.comparison import comparison
from mars_optim.experiment.analysis.ladder import BEND, fall_between
from mars_optim.experiment.analysis.rate_fit import fit_rate
from mars_optim.experiment.analysis.stats import t_interval
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.plan_file import BUILT_IN, make_plan

PLAN = make_plan({**BUILT_IN, "training": {"steps": 1000}, "arms": ["adamw", "mars-adamw"]})


def without(plan: Plan) -> Plan:
    return replace(plan, comparison=replace(plan.comparison, trials_pair=False))


def world(**changes: object) -> World:
    known = dict(effect=-0.1, optimum=(0.3, -0.4), curvature=0.1, ratio=1.0, noise=1e-9)
    return World(**{**known, **changes})  # type: ignore[arg-type]


def test_without_noise_the_fits_give_the_runs_own_difference():
    _, candidate, _ = judge(PLAN, carry_out(PLAN, Losses(world(), PLAN, 0)))
    pair = candidate.trials_pair
    assert pair is not None
    assert pair.seed == 0
    assert pair.difference == pytest.approx(candidate.seeds[0].difference, abs=1e-3)
    assert pair.log_ratio == pytest.approx(candidate.seeds[0].log_ratio, abs=3e-3)


def test_the_pair_counts_in_the_interval_as_any_other():
    _, candidate, _ = judge(PLAN, carry_out(PLAN, Losses(world(noise=0.004), PLAN, 0)))
    assert candidate.trials_pair is not None
    values = [s.log_ratio for s in (*candidate.seeds, candidate.trials_pair)]
    here = candidate.log_ratio_here
    assert here is not None
    assert here.n == len(candidate.seeds) + 1
    assert here.mean == pytest.approx(statistics.fmean(v for v in values if v is not None))


def test_the_first_look_is_after_two_seeds():
    runs = carry_out(PLAN, Losses(world(), PLAN, 0))
    assert {r.spec.seed for r in runs if r.spec.purpose == "compare"} == {1, 2}
    before = carry_out(without(PLAN), Losses(world(), PLAN, 0))
    assert {r.spec.seed for r in before if r.spec.purpose == "compare"} == {1, 2, 3}


@pytest.mark.parametrize(
    "changes",
    [
        {"tuning": {"over": ["lr", "weight_decay"]}},
        {"decision": {"target": 2.0}, "training": {"evaluations": 20}},
    ],
    ids=["a design of trials", "a target"],
)
def test_there_is_none_without_a_fit_of_losses(changes: dict[str, dict[str, object]]):
    data = {key: {**BUILT_IN.get(key, {}), **table} for key, table in changes.items()}
    plan = make_plan({**BUILT_IN, **data})
    assert not plan.trials_pair
    assert plan.first_look == 3
    assert plan.most_pairs == len(plan.comparison.seeds)


@pytest.mark.parametrize("few", [slice(1, 4), slice(0, 5)], ids=["fewer", "as many"])
def test_a_fit_tells_the_loss_of_the_seed_of_the_search(few: slice):
    rng = random.Random(0)
    rates = [2.0**k for k in range(-2, 3)]

    def loss(lr: float, seed: int) -> float:
        return 2.0 + seed + 0.1 * np.log2(lr) ** 2 + rng.gauss(0.0, 1e-4)

    trials = [(lr, 7, loss(lr, 7)) for lr in rates]
    trials += [(lr, 3, loss(lr, 3)) for lr in rates[few]]
    fit = fit_rate(trials, 2.0, None, 7)
    assert fit is not None
    assert fit.loss(1.0) == pytest.approx(9.0, abs=0.01)
    assert fit.loss(2.0) == pytest.approx(9.1, abs=0.02)


def test_unequal_variances_widen_students_interval():
    rng = np.random.default_rng(2)
    for others in (0.1, 0.5, 2.0, 10.0):
        x = rng.standard_normal((4000, 3)) * np.array([1.0, 1.0, others])
        found = [t_interval(list(row), 0.95) for row in x]
        held = np.mean([i.low <= 0.0 <= i.high for i in found])
        assert held > 0.94


@pytest.mark.slow
@pytest.mark.parametrize("saving", [-0.1, 0.05])
def test_whole_pilots_with_the_pair_hold_the_truth(saving: float):
    drawn = [w for kind in KINDS for w in worlds(kind, saving, 12, ("parabola",), "pair")]
    held, wrong = [], []
    for i, each in enumerate(drawn):
        _, candidate, verdict = judge(PLAN, carry_out(PLAN, Losses(each, PLAN, i)))
        assert candidate.log_ratio is not None
        held.append(candidate.log_ratio.low <= each.effect <= candidate.log_ratio.high)
        wrong.append(verdict.decision == "go")
    assert np.mean(held) > 0.88
    assert np.mean(wrong) < 0.1


def test_the_control_shares_the_trials_pair_after_a_clear_go():
    plan = make_plan({**BUILT_IN, "training": {"steps": 1000}})
    runs = carry_out(plan, Losses(world(effect=0.2, noise=0.002), plan, 0))
    arms = arm_results(comparison(plan, plan.sizes()[0], runs), {})
    told = paired(arms["mars-adamw"], arms["nadamw"], plan)
    assert len(arms["mars-adamw"].seeds) == 2
    assert told is not None
    assert told.n == 3
    assert np.isfinite([told.low, told.high]).all()


def test_the_slope_between_two_rungs_is_that_of_their_law():
    x, exponent = np.log([0.5, 1.0]), BEND
    y = 2.0 + 0.7 * np.exp(-exponent * x)
    for place in x:
        loss = 2.0 + 0.7 * math.exp(-exponent * place)
        assert fall_between(x, y, loss) == pytest.approx(exponent * (loss - 2.0))

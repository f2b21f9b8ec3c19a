"""Rates that are chosen on recorded trials: what each rule costs, and what stopping early does."""

from __future__ import annotations

import math

import pytest

from benchmarks.rate_choice import Sweep, by_fit, by_least, costs, halved, marin, stops, usable

BEST = math.log2(0.01) + 0.4
RATES = [0.01 * 2.0**k for k in range(-3, 4)]


def bowl(lr: float) -> float:
    return 2.0 + 0.05 * (math.log2(lr) - BEST) ** 2


def sweep(**halves: float) -> Sweep:
    return Sweep("bowl", {lr: bowl(lr) for lr in RATES}, halves)  # type: ignore[arg-type]


def test_in_a_bowl_the_fit_is_nearer_than_the_least_loss():
    trials = dict(sweep().trials)
    assert by_least(trials) == 0.01
    assert abs(math.log2(by_fit(trials)) - BEST) < 0.15 < 0.4
    assert sweep().cost(by_fit(trials), "smooth") < sweep().cost(by_least(trials), "smooth")


def test_on_the_monotone_curve_the_least_loss_costs_nothing():
    found = costs([sweep()], 0.0, 5, coarse=False)
    assert found["least"] == [[0.0]]
    assert 0 < found["fit"][0][0] < 0.05 * 0.4**2


def test_every_second_rate_is_kept_from_both_starts():
    kept = list(halved(sweep()))
    assert [sorted(trials) for trials in kept] == [RATES[0::2], RATES[1::2]]
    few = Sweep("few", {0.1: 2.0, 0.2: 1.0, 0.4: 2.0, 0.8: None})
    assert list(halved(few)) == []
    assert usable(few)
    assert not usable(Sweep("edge", {0.1: 1.0, 0.2: 1.5, 0.4: 2.0}))


def test_a_trial_that_is_far_behind_half_way_is_stopped():
    order = [0.01, 0.02, 0.08, 0.005]
    trials = {lr: bowl(lr) for lr in order}
    curves = Sweep("bowl", trials, {lr: trials[lr] + 1.0 for lr in order})
    found = stops([curves], 0.1)
    assert (found.stopped, found.wrong) == (1, 0)  # 0.08
    assert found.saved == pytest.approx(0.5 / 4)
    ahead = Sweep("late", trials, {0.01: 3.0, 0.02: 3.5, 0.08: 4.0, 0.005: 2.9})
    assert stops([ahead], 0.1).wrong == 1  # 0.02 is among the three lowest


def test_the_sweeps_of_marin_are_read():
    known = {sweep.name: sweep for sweep in marin()}
    assert known["adamw 130m x1"].trials[0.032] is None
    assert known["adamw 130m x1"].trials[0.008] == pytest.approx(3.529143)
    assert sum(map(usable, known.values())) == 9

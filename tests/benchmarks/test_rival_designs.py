"""Others' protocols on our worlds: what they ask, spend and say."""

from __future__ import annotations

import math

import pytest

from benchmarks.rival_designs import Rival, Told, algoperf, by_saving, row
from benchmarks.simulated_pilots import World

QUIET = dict(optimum=(0.0, 0.0), curvature=0.2, ratio=1.0, noise=1e-9)


@pytest.mark.parametrize("saving", [-0.1, 0.0, 0.05, 0.2])
def test_losses_are_turned_into_tokens_by_the_true_curve(saving: float) -> None:
    rival = Rival(World(effect=-math.log1p(-saving), **QUIET), seed=0)  # type: ignore[arg-type]
    losses = [rival.loss(arm, 0.0, seed=3) for arm in rival.plan.arms]
    assert rival.saving(*losses) == pytest.approx(saving, abs=1e-7)


def test_the_rule_without_an_interval_always_decides() -> None:
    rival = Rival(World(effect=0.0, **QUIET), seed=0)  # type: ignore[arg-type]
    assert by_saving(rival, 3.0, 2.9) == "go"
    assert by_saving(rival, 3.0, 3.0) == "no-go"


@pytest.mark.parametrize(("saving", "decision"), [(0.5, "go"), (-0.5, "no-go")])
def test_the_median_of_studies_sees_a_large_effect(saving: float, decision: str) -> None:
    world = World(effect=-math.log1p(-saving), **{**QUIET, "curvature": 1e-6})  # type: ignore[arg-type]
    assert algoperf(world, 0) == Told(decision, 50.0)


def test_a_go_at_the_least_saving_counts_as_wrong() -> None:
    found = [Told("go", 1.0), Told("no-go", 3.0)]
    assert row("x", 0.05, found)[2:] == ["50.0 ± 35.4", "50.0 ± 35.4", "50.0 ± 35.4", "2.0"]
    assert row("x", 0.2, [Told("go", 1.0)])[4] == "0.0 ± 0.0"

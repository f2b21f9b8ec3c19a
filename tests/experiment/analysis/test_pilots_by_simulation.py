"""Whole pilots with a known truth: the interval holds it as often as it says.

The full tables are in docs/statistics.md (``python -m benchmarks.simulated_pilots``).
"""

from __future__ import annotations

import pytest

from benchmarks.simulated_pilots import MIN_SAVING, SHAPES, World, pilot, plan_of, worlds

PILOTS = 40


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flat, noisy", "middling", "steep, quiet"])
def test_interval_covers_truth_wherever_the_best_lrs_lie(kind: str):
    plan = plan_of()
    drawn = worlds(kind, 0.0, PILOTS, SHAPES)
    results = [pilot(world, i, plan) for i, world in enumerate(drawn)]
    # of 40 at 95 %: fewer than 33 happen once in 1,500 times
    assert sum(r.held for r in results) >= 33
    assert not [r for r in results if r.decision == "go"]


@pytest.mark.slow
def test_a_saving_of_just_the_least_worth_seldom_ends_as_go():
    plan = plan_of()
    drawn = worlds("middling", MIN_SAVING, PILOTS, ["parabola"])
    results = [pilot(world, i, plan) for i, world in enumerate(drawn)]
    # at 2.5 %: more than 5 of 40 happen once in 2,000 times
    assert sum(r.decision == "go" for r in results) <= 5


@pytest.mark.slow
def test_best_lr_is_found_below_a_plateau_of_stuck_lrs():
    plan = plan_of()
    drawn = worlds("steep, quiet", 0.0, 12, ["stuck"])
    results = [pilot(world, i, plan) for i, world in enumerate(drawn)]
    assert all(abs(r.error) < 0.1 for r in results)


STUCK = [  # optima of both arms, curvature, noise, number: each was off by 0.35 to 0.75
    ((-4.755, -0.088), 0.0049, 0.0019, 3),  # it said "go"
    ((-2.749, -2.530), 0.0060, 0.0110, 19),
    ((-2.193, -3.495), 0.0207, 0.0074, 7),
    ((0.324, -4.075), 0.2325, 0.0037, 11),
]


@pytest.mark.slow
@pytest.mark.parametrize(("optimum", "curvature", "noise", "number"), STUCK)
def test_arm_stuck_at_lrs_near_its_start_does_not_bias_the_pilot(
    optimum: tuple[float, float], curvature: float, noise: float, number: int
):
    world = World(
        effect=0.05, optimum=optimum, curvature=curvature, ratio=2.0, noise=noise, shape="stuck"
    )
    for seed in range(number, number + 3):
        assert abs(pilot(world, seed, plan_of()).error) < 0.1


def test_optima_off_the_lr_grid_give_no_go_in_either_order():
    """No effect, optima half a step off the doubling grid: it was no-go, -14 %, or go, 12 %."""
    plan = plan_of()
    for i, optimum in enumerate([(2.5, 3.5), (3.5, 2.5)], start=10):
        found = pilot(
            World(effect=0.0, optimum=optimum, curvature=0.3, ratio=1.6, noise=0.004), i, plan
        )
        assert found.held
        assert found.decision == "no-go"  # 0 lies below the 5 % that are asked for

"""The time of a step by when its rows came."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.experiment.external.pace import Pace
from mars_optim.experiment.external.recorder import Columns

LOOK = 0.02


def train(*steps: int) -> list[dict[str, float]]:
    return [{"step": step, "loss": 3.0} for step in steps]


def evaluation(step: int) -> list[dict[str, float]]:
    return [{"step": step, "valid_loss": 3.0}]


def pace_of(*looks: tuple[float, list[dict[str, float]]]) -> Pace:
    pace = Pace(Columns())
    for now, rows in looks:
        pace.look(rows, now)
    return pace


@given(
    start=st.floats(0.0, 1e4),
    step=st.floats(1e-3, 10.0),
    steps=st.integers(2, 500),
    look=st.floats(1e-3, 0.5),
)
def test_it_is_as_near_as_the_looks_are_close(start: float, step: float, steps: int, look: float):
    """The rows of steps that all take equally long, each found by the next look."""
    pace = Pace(Columns())
    found: dict[int, list[int]] = {}
    for k in range(steps):
        found.setdefault(math.ceil((start + k * step) / look), []).append(k)
    for number, rows in found.items():
        pace.look(train(*rows), number * look)
    measured = pace.step_seconds(look)
    if measured is not None:
        assert measured == pytest.approx(step, abs=1.1 * look / pace.steps + 1e-9 * start)
    else:
        assert (steps - 1) * step < 7 * look


def test_start_first_step_and_evaluations_are_left_out():
    looks = [(5.0, evaluation(0)), (9.0, train(0)), (9.5, train(1)), (10.0, train(2))]
    looks += [(40.0, evaluation(3)), (41.0, train(3)), (41.5, train(4)), (60.0, evaluation(5))]
    assert pace_of(*looks).step_seconds(LOOK) == pytest.approx(0.5)


def test_evaluation_that_arrives_with_steps_gives_no_step_time():
    looks = [(1.0, train(0)), (31.0, [*train(1), *evaluation(1), *train(2)]), (32.0, train(3))]
    assert pace_of(*looks).step_seconds(LOOK) is None
    assert pace_of(*looks, (33.0, train(4))).step_seconds(LOOK) == pytest.approx(1.0)


def test_rows_that_come_at_once_tell_nothing():
    assert pace_of((7.0, train(*range(100)))).step_seconds(LOOK) is None
    assert pace_of((7.0, train(1)), (7.05, train(2))).step_seconds(LOOK) is None


def test_a_value_that_is_none_or_no_number_is_no_evaluation():
    gap = [{"step": k, "loss": 3.0, "valid_loss": math.nan} for k in range(4)]
    looks = [(float(k), [row]) for k, row in enumerate(gap)]
    assert pace_of(*looks).step_seconds(LOOK) == pytest.approx(1.0)


def test_rows_without_a_step_tell_nothing() -> None:
    pace = pace_of((0.0, [{"loss": 3.0}]), (1.0, [{"loss": 3.0}]))
    assert pace.step_seconds(LOOK) is None

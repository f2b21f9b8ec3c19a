"""When a run is evaluated: at its end, and for a curve where that costs little."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mars_optim.experiment.plan import ExecutionOptions
from mars_optim.experiment.plan.training import TrainingPlan
from mars_optim.experiment.records import RunWriter
from mars_optim.experiment.training import evaluation_steps, train
from mars_optim.experiment.training.schedule import CURVE_SHARE, FORWARD
from tests.support.regression import Regression, make_spec

DEFAULT = TrainingPlan()


def test_the_default_plan_is_evaluated_as_often_as_it_says():
    assert evaluation_steps(DEFAULT, 1200, 512, sparing=True) == (400, 800, 1200)


def test_short_run_is_evaluated_only_at_its_end_unless_asked():
    assert evaluation_steps(DEFAULT, 100, 512, sparing=True) == (100,)
    assert evaluation_steps(DEFAULT, 100, 512, sparing=False) == (33, 67, 100)


@given(
    steps=st.integers(1, 10**6),
    step_tokens=st.integers(1, 10**6),
    evaluations=st.integers(1, 50),
    eval_tokens=st.integers(1, 10**7),
)
def test_early_evaluations_are_at_most_a_tenth_of_the_work(
    steps: int, step_tokens: int, evaluations: int, eval_tokens: int
):
    plan = TrainingPlan(evaluations=evaluations, eval_tokens=eval_tokens)
    found = evaluation_steps(plan, steps, step_tokens, sparing=True)
    assert found[-1] == steps
    assert len(found) <= evaluations
    work = FORWARD * eval_tokens * (len(found) - 1)
    assert work <= CURVE_SHARE * steps * step_tokens * (1 + 1e-9)


def test_evaluations_that_are_left_out_change_no_bit_of_the_run(tmp_path: Path):
    task, spec, found = Regression(), make_spec(steps=60, evaluations=5), {}
    for sparing in (True, False):
        writer = RunWriter(tmp_path / str(sparing), spec, {})
        outcome = train(spec, task, writer, execution=ExecutionOptions(sparing=sparing))
        writer.finish(outcome)
        rows = [row["loss"] for row in writer.rows if "loss" in row]
        found[sparing] = (outcome.final_loss, rows, sum("valid_loss" in r for r in writer.rows))
    assert found[True][:2] == found[False][:2]
    assert (found[True][2], found[False][2]) == (1, 5)

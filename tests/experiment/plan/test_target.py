"""The plan's target: what cannot be is told in one line."""

from __future__ import annotations

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.plan.plan_file import make_plan, plan_toml
from mars_optim.toml import parse_toml

JOB = {"parameters": 1.2e9, "tokens": 2.4e10, "batch": 5e5}


def test_a_target_is_read_back_as_it_was_written() -> None:
    plan = make_plan({"target": JOB})
    assert plan.target
    assert make_plan(parse_toml(plan_toml(plan))).target == plan.target
    assert not make_plan({}).target
    assert "[target]" not in plan_toml(make_plan({}))


def test_the_jobs_tokens_are_the_targets() -> None:
    assert make_plan({"target": JOB}).job_cost.planned_tokens == 2.4e10
    assert make_plan({"cost": {"planned_tokens": 7e9}}).job_cost.planned_tokens == 7e9


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"target": {"parameter": 1e9}}, ["target.parameter", "did you mean", "parameters"]),
        ({"target": {"parameters": 1e9}}, ["target.parameters = 1e+09", "target.tokens"]),
        ({"target": {"tokens": 1e9}}, ["target.tokens", "target.parameters = 1.2e+09"]),
        ({"target": {"batch": 1e5}}, ["target.batch", "target.tokens"]),
        ({"target": JOB | {"parameters": -1}}, ["target.parameters = -1", "0"]),
        ({"target": JOB | {"tokens": "many"}}, ["target.tokens = 'many'"]),
        ({"target": JOB | {"tokens": float("inf")}}, ["target.tokens"]),
        ({"target": JOB | {"parameters": 0.5}}, ["0.5", "1 or more"]),
        ({"target": JOB | {"batch": 1e12}}, ["target.batch = 1e+12", "at most", "windows"]),
        ({"target": JOB, "cost": {"planned_tokens": 1e9}}, ["cost.planned_tokens"]),
        ({"target": JOB, "decision": {"target": 3.0}, "training": {"evaluations": 20}},
         ["target.parameters", "decision.target = 3.0"]),
        ({"target": JOB, "decision": {"metric": "bits_per_byte", "direction": "down"}},
         ["decision.metric = 'bits_per_byte'", "loss"]),
        ({"target": {"pilot_parameters": 1e6}, "scale": {"big": {"width": 128}}},
         ["target.pilot_parameters", "scale"]),
    ],
    ids=["key", "tokens", "parameters", "batch alone", "negative", "text", "infinite", "fraction",
         "batch", "planned", "goal", "metric", "sizes"],
)  # fmt: skip
def test_a_target_that_cannot_be_is_one_line(data: dict[str, object], words: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        make_plan(data)
    text = str(raised.value)
    assert "\n" not in text
    assert all(word in text for word in words), text

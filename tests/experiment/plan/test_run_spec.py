"""Conditions under which two runs are the same run."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.errors import UserError
from mars_optim.experiment.plan import Arm, RunSpec
from mars_optim.experiment.plan.arms import ARMS
from mars_optim.experiment.plan.plan_file import make_plan
from mars_optim.experiment.plan.table import concerned
from mars_optim.experiment.plan.task import GptPlan, ImagesPlan, PythonPlan
from mars_optim.experiment.plan.training import TrainingPlan

SPEC = RunSpec(
    purpose="compare",
    arm_name="mars-adamw",
    arm=ARMS["mars-adamw"],
    lr=3e-3,
    seed=1,
    steps=100,
    task=GptPlan(),
    training=TrainingPlan(steps=100),
    data="d" * 64,
)


def other(value: Any, hint: Any = None) -> Any:
    """An allowed value of the same type that differs."""
    if get_origin(hint) is Literal:
        return next(choice for choice in get_args(hint) if choice != value)
    match value:
        case bool():
            return not value
        case "mars":
            return "torch-adamw"
        case str():
            return value + "x"
        case int():
            return value + 1
        case float() | None:
            return value / 2 if value else 0.5
        case ():
            return (1,)
        case (first, *rest):
            return (other(first), *rest)
    raise AssertionError(value)


def changed_specs() -> dict[str, RunSpec]:
    """SPEC with one field changed, for every field at every level but the stage and the folder."""
    specs = {}
    for f in fields(RunSpec):
        value = getattr(SPEC, f.name)
        if f.name in ("arm", "task", "training"):
            hints = get_type_hints(type(value))
            for sub in (sub for sub in fields(value) if sub.compare and concerned(sub, value)):
                if sub.name != "kind":
                    new = other(getattr(value, sub.name), hints[sub.name])
                    changed = replace(value, **{sub.name: new})
                    specs[f"{f.name}.{sub.name}"] = replace(SPEC, **{f.name: changed})
        elif f.name != "purpose":
            specs[f.name] = replace(SPEC, **{f.name: other(value)})
    return specs | {"kind": replace(SPEC, task=ImagesPlan())}


@pytest.mark.parametrize("name", changed_specs())
def test_a_change_of_any_field_makes_another_run(name: str):
    assert changed_specs()[name].run_id != SPEC.run_id


def test_all_changed_runs_have_ids_of_their_own():
    specs = changed_specs()
    assert len({spec.run_id for spec in specs.values()}) == len(specs)


def test_job_folder_is_no_part_of_the_run_identity():
    here = replace(SPEC, task=PythonPlan(source="job.py:Job", folder="/here"))
    moved = replace(SPEC, task=replace(here.task, folder="/elsewhere"))
    assert moved == here
    assert moved.run_id == here.run_id


@pytest.mark.parametrize("purpose", ["tune", "ladder", "compare"])
def test_the_stage_is_no_part_of_the_identity(purpose: str):
    assert replace(SPEC, purpose=purpose).run_id == SPEC.run_id


def test_the_id_tells_arm_rate_seed_and_steps():
    assert SPEC.run_id.startswith("mars-adamw-lr0.003-seed1-steps100-")


@given(
    lr=st.floats(min_value=1e-12, max_value=1e3),
    seed=st.integers(0, 2**70),
    steps=st.integers(1, 10**9),
    arm=st.sampled_from(sorted(ARMS)),
    corpus=st.text(max_size=8),
)
def test_a_spec_comes_back_equal_from_json_with_the_same_id(
    lr: float, seed: int, steps: int, arm: str, corpus: str
):
    spec = replace(
        SPEC,
        arm_name=arm,
        arm=ARMS[arm],
        lr=lr,
        seed=seed,
        steps=steps,
        task=GptPlan(corpus=corpus),
    )
    again = RunSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.run_id == spec.run_id


def test_learning_rates_that_print_alike_are_different_runs():
    a, b = replace(SPEC, lr=0.00123456), replace(SPEC, lr=0.00123457)
    assert a.run_id.rpartition("-")[0] == b.run_id.rpartition("-")[0]
    assert a.run_id != b.run_id


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"lr": "fast"}, "spec.lr = 'fast' must be a number"),
        ({"seeds": 1}, "unknown key 'spec.seeds'; did you mean 'spec.seed'?"),
        ({"arm": 3}, "spec.arm must be a table, not 3"),
        ({"training": {"steps": 1}}, "spec.training.steps = 1 must be at least 10"),
    ],
)
def test_a_damaged_spec_is_refused_with_its_key(damage: dict[str, Any], message: str):
    with pytest.raises(UserError) as error:
        RunSpec.from_dict(SPEC.to_dict() | damage)
    assert message in str(error.value)


@pytest.mark.parametrize("key", [f.name for f in fields(RunSpec) if f.default is MISSING])
def test_a_spec_without_one_of_its_keys_is_refused_by_name(key: str):
    data = SPEC.to_dict()
    del data[key]
    with pytest.raises(UserError, match=f"spec needs the key '{key}'"):
        RunSpec.from_dict(data)


@pytest.mark.parametrize("name", ["a/b", "../up", "/root", "..", "a\0b", "a\nb", "x" * 300])
def test_arm_name_never_leads_out_of_the_runs_folder(name: str):
    """A plan may name arms of its own; each must be refused or make one usable folder name."""
    data = {"arms": ["adamw", name], "comparison": {"candidate": name}, "arm": {name: {}}}
    try:
        plan = make_plan(data)
    except UserError:
        return
    run_id = replace(SPEC, arm_name=name, arm=plan.arm[name]).run_id
    assert Path(run_id).name == run_id
    assert run_id.isprintable()
    assert len(run_id.encode()) <= 255


def test_an_arms_own_settings_are_in_the_spec_not_only_its_name():
    a = replace(SPEC, arm=Arm(gamma=0.025))
    b = replace(SPEC, arm=Arm(gamma=0.05))
    assert a.to_dict()["arm"]["gamma"] == 0.025
    assert a.run_id != b.run_id

"""Arms whose optimizer is any class by its name, as far as a plan tells without importing it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.plan import Arm, Plan, RunSpec
from mars_optim.experiment.plan.any_arm import BESIDE, KINDS
from mars_optim.experiment.plan.arms import ARMS, ablation_arms
from mars_optim.experiment.plan.plan_file import (
    BUILT_IN,
    differences,
    load_plan,
    make_plan,
    overrides,
    plan_toml,
)
from mars_optim.experiment.plan.table import KeywordTable
from mars_optim.experiment.plan.tuning import point, same_but_tuned
from mars_optim.optim.groups import roles

HEAD = 'arms = ["adamw", "soap"]\n[comparison]\ncandidate = "soap"\n[arm.soap]\n'
SOAP = HEAD + 'optimizer = "pytorch_optimizer:SOAP"\nlr = 3e-3\n'
OPTIONS = SOAP + "options = {betas = [0.9, 0.95], weight_decay = 0.1, inner = {a = true}}\n"


def plan_of(folder: Path, text: str, *changes: str) -> Plan:
    path = folder / "plan.toml"
    path.write_text(text)
    return load_plan(path, changes)


def spec_of(arm: Arm) -> RunSpec:
    plan = Plan()
    return RunSpec(
        purpose="tune",
        arm_name="soap",
        arm=arm,
        lr=0.1,
        seed=0,
        steps=10,
        task=plan.task,
        training=plan.training,
        data="",
    )


def test_a_class_with_options_is_an_arm(tmp_path: Path):
    arm = plan_of(tmp_path, OPTIONS).arm["soap"]
    assert (arm.optimizer, arm.lr, arm.parameters) == ("pytorch_optimizer:SOAP", 3e-3, "groups")
    assert dict(arm.options) == {
        "betas": [0.9, 0.95],
        "weight_decay": 0.1,
        "inner": {"a": True},
    }


def test_a_plan_with_a_class_is_read_back_equal(tmp_path: Path):
    groups = "group_options = {matrix = {use_muon = true}}\nown_schedule = true\n"
    plan = plan_of(tmp_path, OPTIONS + groups)
    again = tmp_path / "elsewhere"
    again.mkdir()
    assert plan_of(again, plan_toml(plan)) == plan


def test_overrides_make_the_same_plan_again(tmp_path: Path):
    plan = plan_of(tmp_path, OPTIONS)
    assert make_plan(BUILT_IN, tuple(overrides(plan)), tmp_path) == plan
    assert not any(".folder=" in text or ".lr_1d=" in text for text in overrides(plan))


def test_one_option_can_be_set_alone(tmp_path: Path):
    plan = plan_of(tmp_path, OPTIONS)
    other = plan_of(tmp_path, OPTIONS, "arm.soap.options.weight_decay=0.2")
    assert differences(plan, other) == ["arm.soap.options.weight_decay: 0.1, 0.2"]


def test_a_class_under_a_known_name_takes_none_of_its_defaults(tmp_path: Path):
    text = SOAP.replace("soap", "muon")
    assert plan_of(tmp_path, text).arm["muon"].gamma == Arm().gamma


def test_the_folder_of_the_plan_is_where_a_file_lies(tmp_path: Path):
    text = SOAP.replace("pytorch_optimizer:SOAP", "mine.py:Mine")
    plan = plan_of(tmp_path, text)
    assert plan.arm["soap"].folder == str(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    assert plan_of(other, text) == plan  # where it lies is no part of what it is


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"folder": "/elsewhere"}, True),
        ({"source": "soap of pytorch_optimizer 4.1.0"}, False),
        ({"options": {"weight_decay": 0.2}}, False),
        ({"options": {"weight_decay": 0.1, "k": 1}}, False),
        ({"own_schedule": True}, False),
        ({"parameters": "all"}, False),
    ],
)
def test_what_defines_a_run_is_in_its_name(change: dict[str, Any], same: bool):
    arm = Arm(optimizer="pytorch_optimizer:SOAP", options={"weight_decay": 0.1})
    assert (spec_of(arm).run_id == spec_of(replace(arm, **change)).run_id) is same


def test_a_whole_number_is_another_option_than_a_fraction():
    one, other = KeywordTable(k=1), KeywordTable(k=1.0)
    assert one != other
    assert one == KeywordTable(k=1)
    assert len({one, other, KeywordTable(k=1)}) == 2


def test_a_spec_is_read_back_equal():
    spec = spec_of(Arm(optimizer="pytorch_optimizer:SOAP", options={"betas": (0.9, 0.95)}))
    assert RunSpec.from_dict(spec.to_dict()) == spec
    assert RunSpec.from_dict(spec.to_dict()).run_id == spec.run_id


def test_kinds_of_parameters_are_those_of_param_groups():
    assert KINDS == roles.KINDS
    assert all(hasattr(Arm(), key) for key in BESIDE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optimizer = 'SOAP'\nlr = 1", ["arm.soap.optimizer = 'SOAP'", "'package.module:Class'"]),
        ("optimizer = 'tch-adamw'\nlr = 1", ["did you mean 'torch-adamw'?"]),
        ("optimizer = 'a:b'", ["arm.soap needs the key 'lr'"]),
        ("optimizer = 'a:'\nlr = 1", ["arm.soap.optimizer = 'a:'", '"file.py:Class"']),
        ("optimizer = 'a:b c'\nlr = 1", ["arm.soap.optimizer = 'a:b c'", '"file.py:Class"']),
        ("optimizer = 'a:b'\nlr = 1\nbetas = [0.9, 0.8]", ["arm.soap.betas", "are in options"]),
        ("optimizer = 'a:b'\nlr = 1\ngamma = 0.5", ["arm.soap.gamma = 0.5 needs optimizer"]),
        ("optimizer = 'mars'\noptions = {a = 1}", ["arm.soap.options", "'package.module:Class'"]),
        ("optimizer = 'mars'\nown_schedule = true", ["arm.soap.own_schedule = True needs"]),
        ("optimizer = 'a:b'\nlr = 1\noptions = 3", ["arm.soap.options must be a table, not 3"]),
        ("optimizer = 'a:b'\nlr = 1\noptions = {x = nan}", ["arm.soap.options", "finite"]),
        ("optimizer = 'a:b'\nlr = 1\noptions = {x = 1979-05-27}", ["must hold finite numbers"]),
        ("optimizer = 'a:b'\nlr = 1\noptions = {lr = 1}", ["arm.soap.options.lr", "arm.soap.lr"]),
        ("optimizer = 'a:b'\nlr = 1\noptions = {params = 1}", ["options.params", "leave it out"]),
        ("optimizer = 'a:b'\nlr = 1\noptions = {'a b' = 1}", ["'a b' is not a valid name"]),
        ("optimizer = 'a:b'\nlr = 1\nparameters = 'matrix'", ["did you mean 'matrices'?"]),
        ("optimizer = 'a:b'\nlr = 1\nbetas_1d = [0.5, 0.9]", ["has no effect", "'matrices'"]),
        (
            "optimizer = 'a:b'\nlr = 1\nlr_1d = 1\nparameters = 'all'",
            ["arm.soap.lr_1d = 1.0 has no effect at parameters = 'all'", "'groups'"],
        ),
        ("optimizer = 'a:b'\nlr = 1\ngroup_options = {matrx = {a = 1}}", ["mean 'matrix'?"]),
        ("optimizer = 'a:b'\nlr = 1\ngroup_options = {matrix = 2}", ["must be a table, not 2"]),
        (
            "optimizer = 'a:b'\nlr = 1\ngroup_options = {matrix = {lr = 2}}",
            ["arm.soap.group_options.matrix.lr", "arm.soap.lr"],
        ),
        ("optimizer = 'a:b'\nlr = 1\nlr_1d = 1\nlr_1d_ratio = 1", ["exclude each other"]),
    ],
)
def test_a_wrong_key_is_told_in_one_line(tmp_path: Path, text: str, words: list[str]):
    with pytest.raises(UserError) as caught:
        plan_of(tmp_path, HEAD + text)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_ablations_take_no_betas_from_a_baseline_that_is_a_class():
    candidate, baseline = ARMS["mars-adamw"], Arm(optimizer="a:B", lr=0.1)
    with_betas = ablation_arms("m", candidate, ARMS["adamw"])
    assert set(with_betas) - set(ablation_arms("m", candidate, baseline)) == {"m-baseline-betas"}
    other = replace(candidate, betas=(0.9, 0.99))
    assert "m-baseline-betas" not in ablation_arms("m", other, baseline)


def test_tuning_scales_what_is_in_the_options():
    options = {"betas": [0.9, 0.99], "weight_decay": 1, "k": 3}
    arm = Arm(optimizer="a:B", lr=0.1, options=options)
    over = ["lr", "weight_decay", "beta2", "lr_1d"]
    tried = point(arm, {"lr": 2.0, "weight_decay": 0.5, "beta2": 2.0, "lr_1d": 3.0})
    assert tried.lr == 0.2
    assert dict(tried.arm.options) == {**options, "betas": [0.9, 0.98], "weight_decay": 0.5}
    assert tried.arm.lr_1d_ratio == pytest.approx(1.5)
    assert same_but_tuned(arm, tried.arm, over)
    assert same_but_tuned(arm, arm, over)
    assert not same_but_tuned(arm, tried.arm, ["lr", "weight_decay", "lr_1d"])
    assert not same_but_tuned(arm, replace(arm, options={**options, "k": 4}), over)


@pytest.mark.parametrize("what", ["weight_decay", "beta1"])
def test_tuning_asks_for_an_option_that_is_not_given(tmp_path: Path, what: str):
    text = SOAP + f'[tuning]\nover = ["lr", "{what}"]\ntrials = 8\n'
    with pytest.raises(UserError, match=r"soap does not have.*set arm\.soap\.options\."):
        plan_of(tmp_path, text)
    plan = plan_of(tmp_path, text + f"[tuning.arm.soap]\n{what} = [1, 1]\n")
    assert plan.tuning.spans("soap")[what] == (1.0, 1.0)


def test_a_class_is_no_arm_of_a_command(tmp_path: Path):
    command = "x {optimizer} {lr} {seed} {steps} {run_dir}"
    text = SOAP + f'[task]\nkind = "command"\ncommand = "{command}"\n'
    with pytest.raises(UserError, match="the command makes its optimizer itself"):
        plan_of(tmp_path, text)

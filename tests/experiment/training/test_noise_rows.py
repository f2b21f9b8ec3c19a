"""Training rows say what the optimizer's steps saw of noise, where the arm is MARS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mars_optim.experiment.plan import ExecutionOptions
from mars_optim.experiment.records import Run, RunWriter, read_run
from mars_optim.experiment.training import train
from mars_optim.integrations.telemetry_rows import from_row, to_row
from tests.support.regression import Regression, make_spec, rows_of


def recorded(folder: Path, arm: str, **options: Any) -> Run:
    spec = make_spec(arm=arm)
    writer = RunWriter(folder, spec, {})
    writer.finish(train(spec, Regression(), writer, execution=ExecutionOptions(**options)))
    writer.close()
    return read_run(writer.path)


@pytest.mark.parametrize("arm", ["mars-adamw", "mars-lion", "mars-m"])
def test_every_fourth_step_of_mars_is_measured(arm: str, tmp_path: Path):
    run = recorded(tmp_path, arm)
    losses, noise = rows_of(run, "loss"), rows_of(run, "noise")
    assert set(noise) == {step for step in losses if step % 4 == 0}
    (group,) = from_row(noise[max(noise)])
    assert group["noise"] > 0
    assert group["gamma"] == 0.025
    assert 0 <= group["clip_rate"] <= 1


@pytest.mark.parametrize("arm", ["adamw", "nadamw", "mars-adamw-plain"])
def test_an_arm_that_keeps_no_gradient_has_none(arm: str, tmp_path: Path):
    assert rows_of(recorded(tmp_path, arm), "noise") == {}


@pytest.mark.parametrize("arm", ["mars-adamw-decay", "nadamw-auto"])
def test_the_course_of_gamma_is_recorded(arm: str, tmp_path: Path):
    noise = rows_of(recorded(tmp_path, arm), "noise")
    gammas = [group["gamma"] for row in noise.values() for group in from_row(row)]
    assert len(set(gammas)) > 1


def test_it_can_be_left_out_and_changes_no_loss(tmp_path: Path):
    with_noise = recorded(tmp_path / "with", "mars-adamw")
    without = recorded(tmp_path / "without", "mars-adamw", telemetry=False)
    assert rows_of(without, "noise") == {}
    assert rows_of(without, "loss") == rows_of(with_noise, "loss")


def test_the_exact_form_tells_of_its_correction_but_not_of_noise(tmp_path: Path):
    noise = rows_of(recorded(tmp_path, "mars-adamw-exact"), "noise")
    (group,) = from_row(noise[max(noise)])
    assert "correction_ratio" in group
    assert "noise" not in group


def test_a_row_is_read_back_as_its_groups():
    fields = dict.fromkeys(
        "gradient signal noise noise_scale cosine correction_ratio clip_rate gamma".split(), 0.5
    )
    groups = [
        dict(group=0, kind="matrix", tensors=3, **fields),
        dict(group=1, kind="matrix", tensors=1, **{**fields, "noise_scale": float("inf")}),
        dict(group=2, kind="embedding", tensors=1, **fields),
    ]
    row = to_row(groups)
    assert row["signal/matrix 1"] == row["signal/embedding"] == 0.5
    read = from_row(row)
    assert [g["tensors"] for g in read] == [3, 1, 1]
    assert "noise_scale" not in read[1]
    assert from_row(None) == from_row([1]) == []

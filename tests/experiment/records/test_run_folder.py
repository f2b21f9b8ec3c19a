"""Files that a run leaves, after a proper end and after every other kind of end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.plan import RunSpec
from mars_optim.experiment.plan.arms import ARMS
from mars_optim.experiment.plan.plan import TrainingPlan
from mars_optim.experiment.plan.task import GptPlan
from mars_optim.experiment.records import Outcome, RunWriter, read_run, read_runs
from mars_optim.files import read_json, write_json, write_text

SPEC = RunSpec(
    purpose="tune",
    arm_name="adamw",
    arm=ARMS["adamw"],
    lr=1e-3,
    seed=0,
    steps=10,
    task=GptPlan(),
    training=TrainingPlan(steps=10),
    data="abc",
)
OUTCOME = Outcome(
    status="finished",
    final_loss=2.5,
    steps=10,
    tokens=5120,
    seconds=0.25,
    parameters=1000,
    state_bytes=8000,
)
ENVIRONMENT = {"python": "3.11.7", "threads": 1}
ROWS = [{"step": 1, "loss": 5.5}, {"step": 2, "valid_loss": 5.25}, {"step": 3, "loss": 1e-30}]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[RunWriter]:
    writer = RunWriter(tmp_path, SPEC, ENVIRONMENT)
    for row in ROWS:
        writer.row(**row)
    yield writer
    writer.close()


def test_a_finished_run_comes_back_as_it_was_written(writer: RunWriter):
    writer.finish(OUTCOME)
    run = read_run(writer.path)
    assert run.path.name == SPEC.run_id
    assert (run.spec, run.outcome, run.environment) == (SPEC, OUTCOME, ENVIRONMENT)
    assert run.rows == ROWS
    assert run.final_loss == 2.5


def test_a_run_under_way_has_its_rows_on_disk_and_no_outcome(writer: RunWriter):
    run = read_run(writer.path)
    assert run.outcome is None
    assert run.final_loss is None
    assert run.rows == ROWS


def test_a_diverged_run_keeps_its_reason_and_has_no_loss(writer: RunWriter):
    outcome = replace(OUTCOME, status="diverged", final_loss=None, steps=3, reason="loss nan")
    writer.finish(outcome)
    run = read_run(writer.path)
    assert run.outcome == outcome
    assert run.final_loss is None


@pytest.mark.parametrize("cut", [2, 5, 17])
def test_a_last_line_cut_short_is_passed_over(writer: RunWriter, cut: int):
    path = writer.path / "rows.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_run(writer.path).rows == ROWS[:2]


def test_a_last_line_of_rubbish_is_passed_over(writer: RunWriter):
    with (writer.path / "rows.jsonl").open("ab") as file:
        file.write(b"\0\0\xff\xfe\0")
    assert read_run(writer.path).rows == ROWS


def test_a_run_without_rows_has_none(writer: RunWriter):
    (writer.path / "rows.jsonl").unlink()
    assert read_run(writer.path).rows == []


def test_restarted_run_discards_what_an_interrupted_try_left(writer: RunWriter):
    again = RunWriter(writer.path.parent, SPEC, {"python": "3.12.0"})
    again.row(step=1, loss=4.0)
    again.close()
    run = read_run(writer.path)
    assert run.rows == [{"step": 1, "loss": 4.0}]
    assert run.environment == {"python": "3.12.0"}
    assert run.outcome is None


def test_numbers_are_written_to_the_last_bit(writer: RunWriter):
    values = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308]
    writer.row(values=values)
    assert read_run(writer.path).rows[-1] == {"values": values}


def test_runs_are_read_in_name_order_finished_or_not(tmp_path: Path):
    specs = [replace(SPEC, arm_name=name) for name in ("mars-adamw", "adamw", "lion")]
    for i, spec in enumerate(specs):
        writer = RunWriter(tmp_path, spec, {})
        if i:
            writer.finish(OUTCOME)
        writer.close()
    (tmp_path / "a stray file").write_text("x")
    (tmp_path / "a stray folder").mkdir()
    runs = read_runs(tmp_path)
    assert [r.spec.arm_name for r in runs] == ["adamw", "lion", "mars-adamw"]
    assert [r.outcome is None for r in runs] == [False, False, True]


def test_a_folder_that_is_not_there_holds_no_runs(tmp_path: Path):
    assert read_runs(tmp_path / "runs") == []


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_a_run_of_another_format_is_refused_with_the_way_out(writer: RunWriter, version: object):
    path = writer.path / "manifest.json"
    write_json(path, read_json(path) | {"format": version})
    with pytest.raises(UserError) as error:
        read_run(writer.path)
    assert str(error.value).startswith(f"{path} has format {version!r}, and this version reads 1")
    assert "read it with the version of mars-optim that wrote it" in str(error.value)


def damaged(damage: str, manifest: dict[str, Any]) -> bytes:
    text = json.dumps(manifest)
    if damage.startswith("without "):
        return json.dumps({k: v for k, v in manifest.items() if k != damage[8:]}).encode()
    return {
        "empty": b"",
        "cut": text[: len(text) // 2].encode(),
        "binary": b"\xff\xfe\0\1",
        "a list": b"[]",
        "a number": b"3",
        "no spec": json.dumps(manifest | {"spec": None}).encode(),
        "spec of another version": json.dumps(
            manifest | {"spec": manifest["spec"] | {"new": 1}}
        ).encode(),
        "outcome of another version": json.dumps(manifest | {"outcome": {"new": 1}}).encode(),
        "outcome is a number": json.dumps(manifest | {"outcome": 3}).encode(),
    }[damage]


@pytest.mark.parametrize(
    "damage",
    [
        "empty",
        "cut",
        "binary",
        "a list",
        "a number",
        "no spec",
        "spec of another version",
        "outcome of another version",
        "outcome is a number",
        "without spec",
        "without outcome",
        "without environment",
    ],
)
def test_a_damaged_manifest_is_refused_in_one_line_with_its_path(writer: RunWriter, damage: str):
    path = writer.path / "manifest.json"
    path.write_bytes(damaged(damage, json.loads(path.read_text())))
    with pytest.raises(UserError) as error:
        read_run(writer.path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_manifest_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"manifest\.json does not exist"):
        read_run(tmp_path / "nowhere")


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path):
    path = tmp_path / "file.json"
    write_json(path, {"old": 1})
    write_json(path, {"new": [1, 2]})
    assert read_json(path) == {"new": [1, 2]}
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert path.read_text() == "old"

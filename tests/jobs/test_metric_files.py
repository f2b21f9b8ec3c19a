"""Rows of JSONL, CSV and TensorBoard event files, whole and while they grow."""

from __future__ import annotations

import builtins
import json
import math
from pathlib import Path
from typing import Any

import pytest

from mars_optim.jobs.files import Tail, read_rows
from mars_optim.jobs.recorder import Columns, Recorder
from mars_optim.records import UserError


def test_json_lines_are_read_as_they_come_and_a_cut_line_waits_for_its_end(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    tail = Tail(tmp_path, "*.jsonl")
    assert list(tail.rows()) == []
    with path.open("w") as file:
        for text, rows in [('{"a": 1}\n{"a"', [{"a": 1}]), (": 2}\n", [{"a": 2}]), ("\n", [])]:
            file.write(text)
            file.flush()
            assert list(tail.rows()) == rows
    assert list(tail.rows(final=True)) == []


@pytest.mark.parametrize(("rest", "rows"), [('{"a": 2}', [{"a": 2}]), ('{"a": ', []), ("7", [])])
def test_a_last_line_without_an_end_counts_if_it_is_whole(tmp_path: Path, rest: str, rows: list):
    (tmp_path / "m.jsonl").write_text('{"a": 1}\n' + rest)
    assert read_rows(tmp_path / "m.jsonl") == [{"a": 1}, *rows]


@pytest.mark.parametrize("line", ["loss 3.2", "[1, 2]", '{"a": }'])
def test_a_line_that_is_no_json_object_is_named(tmp_path: Path, line: str):
    path = tmp_path / "m.jsonl"
    path.write_text(f'{{"a": 1}}\n{line}\n')
    with pytest.raises(UserError, match=r"m\.jsonl, line 2 is no JSON"):
        read_rows(path)


def test_csv_cells_are_numbers_or_texts_and_empty_ones_are_none(tmp_path: Path):
    (tmp_path / "m.csv").write_text('\ufeffstep,"a, b",name\r\n1,2.5,x\r\n2,,\r\n3,nan,\r\n')
    rows = read_rows(tmp_path / "m.csv")
    assert rows[:2] == [{"step": 1.0, "a, b": 2.5, "name": "x"}, {"step": 2.0}]
    assert math.isnan(rows[2]["a, b"])


def test_a_csv_file_is_read_on_even_if_its_logger_writes_a_new_header_over_it(tmp_path: Path):
    path, tail = tmp_path / "m.csv", Tail(tmp_path, "m.csv")
    path.write_text("step,loss\n1,3.0\n2,2.")
    assert list(tail.rows()) == [{"step": 1.0, "loss": 3.0}]
    path.write_text("step,loss,valid\n1,3.0,\n2,2.5,\n2,,2.25\n")
    assert list(tail.rows()) == [{"step": 2.0, "loss": 2.5}, {"step": 2.0, "valid": 2.25}]
    assert list(tail.rows(final=True)) == []


def test_event_files_are_read_while_they_grow_and_in_a_folder(tmp_path: Path):
    writer_module = pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    writer = writer_module.EventFileWriter(str(tmp_path / "logs"))
    tail = Tail(tmp_path, "**/*tfevents*")
    for step, value in ((1, 3.0), (2, math.nan)):
        writer.add_event(scalar("train/loss", value, step))
        writer.flush()
        (row,) = tail.rows()
        assert row["step"] == step
        assert row["train/loss"] == pytest.approx(value, nan_ok=True)
    writer.close()
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2]


def scalar(tag: str, value: float, step: int) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))


def test_without_tensorboard_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(b"")
    real = builtins.__import__

    def without(name: str, *more: Any, **options: Any) -> Any:
        if name.startswith("tensorboard"):
            raise ImportError(name)
        return real(name, *more, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'mars-optim\[tensorboard\]'"):
        read_rows(path)


def record(rows: list[dict[str, Any]], steps: int, **columns: Any) -> Recorder:
    recorder = Recorder(Columns(**columns), steps, lambda **row: None)
    for row in rows:
        recorder.add(row)
    return recorder


def test_counts_that_stop_before_the_last_step_are_carried_on_evenly():
    rows: list[dict[str, Any]] = [{"step": s, "loss": 1.0, "tokens": 10 * s} for s in (45, 90)]
    outcome = record([*rows, {"step": 100, "valid_loss": 0.5}], 100).outcome(7.0)
    assert (outcome.tokens, outcome.seconds, outcome.final_loss) == (1000, 7.0, 0.5)


def test_json_null_under_a_loss_is_no_number_and_so_a_divergence():
    rows = json.loads('[{"step": 1, "loss": 2.0}, {"step": 2, "loss": null}]')
    assert record(rows, 10).outcome(0.0).reason == "training loss nan at step 2"


def test_a_text_where_a_number_should_be_is_named():
    with pytest.raises(UserError, match="'loss' is no number: 'high'"):
        record([{"step": 1, "loss": "high"}], 10)


def test_rows_without_losses_may_hold_memory_and_parameters():
    rows: list[dict[str, Any]] = [
        {"parameters": 1000, "state_bytes": 8000},
        {"step": 10, "loss": 1.0},
        {"step": 10, "valid_loss": 1.0},
    ]
    outcome = record(rows, 10, tokens_per_step=3).outcome(0.0)
    assert (outcome.parameters, outcome.state_bytes, outcome.tokens) == (1000, 8000, 30)

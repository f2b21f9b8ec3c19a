"""Rows of JSONL, CSV and TensorBoard event files, whole and while they grow."""

from __future__ import annotations

import builtins
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.external.metric_files import Tail, read_rows
from mars_optim.experiment.external.recorder import Columns, Recorder
from mars_optim.experiment.external.rows import Row


def test_jsonl_is_read_as_it_grows_and_a_cut_line_waits(tmp_path: Path):
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
    with pytest.raises(UserError, match=r"m\.jsonl, line 2 is not (a )?JSON"):
        read_rows(path)


def test_csv_cells_are_numbers_or_texts_and_empty_ones_are_none(tmp_path: Path):
    (tmp_path / "m.csv").write_text('\ufeffstep,"a, b",name\r\n1,2.5,x\r\n2,,\r\n3,nan,\r\n')
    rows = read_rows(tmp_path / "m.csv")
    assert rows[:2] == [{"step": 1.0, "a, b": 2.5, "name": "x"}, {"step": 2.0}]
    assert math.isnan(rows[2]["a, b"])


def test_csv_is_read_on_after_its_logger_rewrites_the_header(tmp_path: Path):
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


def events(folder: Path, tag: str, value: float) -> Path:
    """An event file of two steps."""
    writer_module = pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    writer = writer_module.EventFileWriter(str(folder))
    for step in (50, 100):
        writer.add_event(scalar(tag, value, step))
    writer.close()
    return next(folder.glob("*tfevents*"))


def test_tag_in_two_folders_is_refused_unless_named_by_folder(tmp_path: Path):
    for name, value in (("loss_train", 1.0), ("loss_test", 2.0)):
        events(tmp_path / name, "loss", value)
    with pytest.raises(UserError, match="in two places, loss_test and loss_train: name one by its"):
        read_rows(tmp_path, ["loss"])
    rows = read_rows(tmp_path, ["loss_test/loss"])
    assert {row["loss_test/loss"] for row in rows if "loss_test/loss" in row} == {2.0}


def test_two_event_files_of_one_folder_are_one_log(tmp_path: Path):
    shutil.move(events(tmp_path / "a", "loss", 1.0), tmp_path / "events.out.tfevents.1")
    shutil.move(events(tmp_path / "b", "loss", 1.0), tmp_path / "events.out.tfevents.2")
    assert len(read_rows(tmp_path, ["loss"])) == 4


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_an_event_file_that_is_cut_short_is_named(tmp_path: Path, cut: int):
    path = events(tmp_path, "loss", 1.0)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(UserError, match=r"tfevents.* is cut short after \d events, at byte"):
        read_rows(tmp_path)


def test_an_event_file_with_a_wrong_byte_is_named(tmp_path: Path):
    path = events(tmp_path, "loss", 1.0)
    data = bytearray(path.read_bytes())
    data[-8] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"tfevents.* is damaged after \d of 3 events: copy it"):
        read_rows(tmp_path)


SEPARATED = {
    "m.tsv": "step\tloss, mean\n1\t2.5\n",
    "m.TSV": "step\tloss, mean\n1\t2.5\n",
    "semicolon.csv": "step;loss, mean\n1;2.5\n",
    "tab.csv": "step\tloss, mean\n1\t2.5\n",
    "space.csv": 'step, "loss, mean"\n1, 2.5\n',
}


@pytest.mark.parametrize("name", SEPARATED)
def test_the_header_shows_how_a_file_is_separated(tmp_path: Path, name: str):
    (tmp_path / name).write_text(SEPARATED[name])
    assert read_rows(tmp_path / name) == [{"step": 1.0, "loss, mean": 2.5}]


def test_two_columns_with_one_heading_are_refused_when_read(tmp_path: Path):
    (tmp_path / "m.csv").write_text("step,loss,loss,x,x\n1,2.0,3.0,1,1\n")
    with pytest.raises(
        UserError, match="has 2 columns headed 'loss': rename or remove all but one"
    ):
        read_rows(tmp_path / "m.csv", ["loss"])
    assert len(read_rows(tmp_path / "m.csv", ["step"])) == 1


def test_key_with_two_values_in_one_row_is_refused(tmp_path: Path):
    (tmp_path / "m.jsonl").write_text('{"a": 1, "a": 1}\n{"a": 1, "a": 2}\n')
    with pytest.raises(UserError, match="line 2 has the key 'a' twice"):
        read_rows(tmp_path / "m.jsonl")


def test_a_column_in_two_files_of_one_pattern_is_refused(tmp_path: Path):
    for name in ("train.csv", "valid.csv"):
        (tmp_path / name).write_text("step,loss\n1,2.0\n")
    with pytest.raises(UserError, match=r"'loss' in two places, train\.csv and valid\.csv"):
        list(Tail(tmp_path, "*.csv", ["loss"]).rows(final=True))


@pytest.mark.parametrize("name", ["m.jsonl.gz", "m.parquet"])
def test_files_of_another_kind_are_called_by_what_they_are(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"\x1f\x8b\xff")
    with pytest.raises(UserError, match=r"is packed: unpack it|is neither JSONL, CSV nor"):
        read_rows(tmp_path / name)


def test_json_that_is_nested_too_deep_is_named(tmp_path: Path):
    (tmp_path / "m.jsonl").write_text('{"a": ' + "[" * 100_000 + "\n")
    with pytest.raises(UserError, match="line 1 is not JSON that can be read: nested too deep"):
        read_rows(tmp_path / "m.jsonl")


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


def test_token_counts_that_end_early_are_extended_evenly():
    rows: list[dict[str, Any]] = [{"step": s, "loss": 1.0, "tokens": 10 * s} for s in (45, 90)]
    outcome = record([*rows, {"step": 100, "valid_loss": 0.5}], 100).outcome(7.0)
    assert (outcome.tokens, outcome.seconds, outcome.final_loss) == (1000, 7.0, 0.5)


def test_null_under_a_loss_is_no_value_and_so_no_divergence():
    rows = json.loads('[{"step": 1, "loss": 2.0}, {"step": 2, "loss": null, "valid_loss": 1.5}]')
    outcome = record(rows, 2).outcome(0.0)
    assert (outcome.status, outcome.final_loss) == ("finished", 1.5)


NAN, INF = math.nan, math.inf
ENDS: dict[str, tuple[list[tuple[int, float | None, float | None]], str]] = {
    "a NaN that nothing follows": ([(1, 2.0, None), (2, NAN, None)], "training loss nan at step 2"),
    "so in validation": ([(1, 2.0, None), (2, None, NAN)], "validation loss nan at step 2"),
    "infinity": ([(1, 2.0, None), (2, INF, NAN)], "training loss inf at step 2"),
    "all columns in every row": ([(1, 2.0, NAN), (2, NAN, NAN)], "validation loss nan at"),
    "weights gone in the last step": ([(1, 2.0, 2.0), (2, 2.0, NAN)], "validation loss nan at"),
    "NaN for no value": ([(1, 2.0, NAN), (2, NAN, 1.5)], ""),
    "NaN for no value in every way": ([(1, NAN, NAN), (2, 2.0, NAN), (2, NAN, 1.5)], ""),
    "an overflow that the run got over": ([(1, INF, None), (2, 2.0, None), (2, None, 1.5)], ""),
    "a row after the result": ([(2, 2.0, 1.5), (2, NAN, NAN)], ""),
}


@pytest.mark.parametrize(("losses", "reason"), ENDS.values(), ids=ENDS)
def test_a_number_that_is_none_counts_by_what_follows_it(
    losses: list[tuple[int, float | None, float | None]], reason: str
):
    rows = [{"step": s, "loss": train, "valid_loss": valid} for s, train, valid in losses]
    outcome = record(rows, 2).outcome(0.0)
    assert outcome.reason.startswith(reason)
    assert outcome.status == ("diverged" if reason else "finished")


def test_last_nan_is_unclear_where_nan_elsewhere_means_no_value():
    rows = [{"step": 1, "valid_loss": NAN}, {"step": 2, "valid_loss": 2.0}]
    recorder = record([*rows, {"step": 3, "valid_loss": NAN}], 4)
    assert recorder.outcome(0.0).reason == ""
    assert "validation loss nan at step 3 may mean a divergence or" in recorder.unclear


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"step": 1.5, "loss": 1.0}, "'step' is 1.5: a step must be a whole number"),
        ({"step": NAN, "loss": 1.0}, "'step' is nan"),
        ({"step": -1, "loss": 1.0}, "'step' is -1"),
        ({"step": None, "loss": 1.0}, "has a loss but no 'step'"),
        ({"step": 1, "loss": "2,5"}, "write a decimal point, not a comma"),
        ({"step": 1, "loss": True}, "'loss' is not a number: 'True'"),
        ({"step": 1, "loss": 10**400}, "'loss' is not a number"),
        ({"step": 1, "loss": [1.0]}, "'loss' is not a number"),
    ],
    ids=str,
)
def test_a_step_or_loss_that_is_none_is_named_with_its_row(row: dict[str, Any], words: str):
    with pytest.raises(UserError, match=re.escape(words)) as error:
        record([Row(row, "m.jsonl, line 3")], 10)
    assert str(error.value).startswith("m.jsonl, line 3: ")


def test_rows_without_metric_may_have_any_step_and_number():
    rows: list[dict[str, Any]] = [
        {"step": None, "gpu": 0.9},
        {"step": "end", "tokens": NAN},
        {"step": 10, "valid_loss": 1.0, "tokens": INF, "seconds": "n/a"},
    ]
    assert record(rows, 10).outcome(3.0).tokens == 10


def test_the_last_step_counts_not_the_last_row():
    rows = [{"step": s, "valid_loss": float(s)} for s in (3, 1, 2)]
    assert record(rows, 3).outcome(0.0).final_loss == 3.0


@pytest.mark.parametrize(("second", "refused"), [(2.0, False), (2.0 + 1e-7, False), (2.5, True)])
def test_two_results_of_one_step_are_refused_if_they_differ(second: float, refused: bool):
    recorder = record([{"step": 10, "valid_loss": 2.0}, {"step": 10, "valid_loss": second}], 10)
    if not refused:
        recorder.check_result()
        return
    with pytest.raises(UserError, match=r"step 10 has two validation losses, 2 and 2\.5"):
        recorder.check_result()


def test_a_text_where_a_number_should_be_is_named():
    with pytest.raises(UserError, match="'loss' is not a number: 'high'"):
        record([{"step": 1, "loss": "high"}], 10)


def test_rows_without_losses_may_hold_memory_and_parameters():
    rows: list[dict[str, Any]] = [
        {"parameters": 1000, "state_bytes": 8000},
        {"step": 10, "loss": 1.0},
        {"step": 10, "valid_loss": 1.0},
    ]
    outcome = record(rows, 10, tokens_per_step=3).outcome(0.0)
    assert (outcome.parameters, outcome.state_bytes, outcome.tokens) == (1000, 8000, 30)

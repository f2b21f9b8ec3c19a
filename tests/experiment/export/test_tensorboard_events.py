"""Event files that TensorBoard itself reads back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mars_optim.cli import main
from mars_optim.experiment.records import read_runs
from tests.support.written_pilot import write_pilot
from tests.support.written_run import write_run

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


@pytest.fixture
def out(tmp_path: Path) -> Path:
    write_pilot(tmp_path / "pilot", speedup=1.2, comparison__seeds="[1, 2]")
    return tmp_path / "pilot"


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_tensorboard_reads_every_row_of_every_run(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logdir = tmp_path / "logs"
    assert main(["export", "--tensorboard", str(out), "--out", str(logdir)]) == 0
    runs = read_runs(out / "runs")
    assert f"{len(runs)} runs written" in capsys.readouterr().out
    assert {p.name for p in logdir.iterdir()} == {run.path.name for run in runs}
    names = {"loss": "loss/training", "lr": "schedule/learning rate", "grad_norm": "gradient/norm"}
    names["valid_loss"] = "loss/validation"
    for run in runs[::6]:
        events = read(logdir / run.path.name)
        for key, tag in names.items():
            rows = [(row["step"], row[key]) for row in run.rows if key in row]
            scalars = events.Scalars(tag)
            assert [s.step for s in scalars] == [step for step, _ in rows]
            assert [s.value for s in scalars] == pytest.approx([value for _, value in rows])
        times = [s.wall_time for s in events.Scalars("loss/training")]
        seconds = [row["seconds"] for row in run.rows if "loss" in row]
        assert times[-1] - times[0] == pytest.approx(seconds[-1] - seconds[0], abs=1e-3)
        final = events.Scalars("loss/final over tokens")[0]
        assert run.outcome is not None
        assert (final.step, final.value) == (run.outcome.tokens, pytest.approx(run.final_loss))
        assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")


def test_the_folder_of_mars_train_needs_no_plan(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    assert main(["export", "--tensorboard", str(tmp_path)]) == 0
    events = read(tmp_path / "tensorboard" / path.name)
    tags = {"loss/bits per byte": 5.77, "speed/model FLOPs utilisation": 0.25, "more/ratio": 2.0}
    for tag, value in tags.items():
        assert events.Scalars(tag)[0].value == pytest.approx(value)


def test_only_what_has_grown_is_written_again(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", "--tensorboard", str(out)]
    runs = len(read_runs(out / "runs"))
    assert main(command) == 0
    rows = next((out / "runs").glob("adamw-*-steps1000-*")) / "rows.jsonl"
    with rows.open("a") as file:
        file.write(json.dumps(dict(step=1001, tokens=512512, seconds=11.0, loss=0.5)) + "\n")
    capsys.readouterr()
    assert main(command) == 0
    assert f"1 runs written, {runs - 1} were there already" in capsys.readouterr().out
    folder = out / "tensorboard" / rows.parent.name
    assert len(list(folder.iterdir())) == 1
    assert read(folder).Scalars("loss/training")[-1].value == 0.5


def test_tensorboard_export_skips_truncated_line_and_null_value(out: Path) -> None:
    rows = next((out / "runs").glob("adamw-*-steps1000-*")) / "rows.jsonl"
    with rows.open("a") as file:
        file.write(json.dumps(dict(step=1001, tokens=1, seconds=11.0, loss=None)) + '\n{"step": 10')
    assert main(["export", "--tensorboard", str(out)]) == 0
    events = read(out / "tensorboard" / rows.parent.name)
    assert events.Scalars("loss/training")[-1].step == 1000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["export", "nowhere", "--tensorboard"], "neither a pilot nor a run"),
        (["export", "nowhere"], "program to export to: mars export nowhere with --tensorboard"),
    ],
)
def test_a_mistake_gives_one_line(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


def test_without_tensorboard_the_way_to_it_is_told(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert main(["export", "--tensorboard", str(out)]) == 2
    assert "pip install 'mars-optim[tensorboard]'" in capsys.readouterr().err

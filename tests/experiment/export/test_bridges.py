"""Runs for trackio and W&B: the same scalars as for TensorBoard, on this machine only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mars_optim.cli import main
from mars_optim.experiment.export.scalars import points, settings
from mars_optim.experiment.records import read_run
from tests.support.written_run import ROWS, write_run

SCALARS = [
    {
        "loss/training": 5.0,
        "schedule/learning rate": 1e-3,
        "gradient/norm": 1.0,
        "speed/model FLOPs utilisation": 0.25,
    },
    {"loss/training": 4.5, "schedule/learning rate": 0.0, "more/ratio": 2},
    {"loss/validation": 4.0, "loss/bits per byte": 5.77},
]
STEPS = [10, 20, 20]


class FakeTrackio:
    """Stands for ``SQLiteStorage``: what its two calls leave."""

    def __init__(self) -> None:
        self.runs: dict[tuple[str, str], list[Any]] = {}
        self.calls: list[str] = []

    def delete_run(self, project: str, run: str) -> bool:
        self.calls.append("delete")
        return self.runs.pop((project, run), None) is not None

    def bulk_log(
        self,
        project: str,
        run: str,
        metrics_list: list[dict[str, float]],
        steps: list[int],
        timestamps: list[str] | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        self.calls.append("log")
        (Path(os.environ["TRACKIO_DIR"]) / f"{project}.db").touch()
        rows = self.runs.setdefault((project, run), [])
        times = timestamps or [None] * len(steps)
        rows += zip(steps, metrics_list, times, [config] * len(steps), strict=True)


class FakeWandb(ModuleType):
    """Stands for ``wandb``: every run with what was logged to it."""

    Settings = SimpleNamespace

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: list[SimpleNamespace] = []

    def init(self, *, mode: str, dir: str, **options: Any) -> SimpleNamespace:
        folder = Path(dir) / "wandb" / f"offline-run-{len(self.runs)}"
        folder.mkdir(parents=True)
        rows: list[tuple[int, dict[str, Any]]] = []
        run = SimpleNamespace(
            offline=mode == "offline", rows=rows, summary={}, finished=False, **options
        )
        run.log = lambda values, step: rows.append((step, values))
        run.finish = lambda: vars(run).update(finished=True)
        self.runs.append(run)
        return run


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTrackio:
    fake = FakeTrackio()
    for name, content in {
        "trackio": dict(__version__="0.43.0"),
        "trackio.sqlite_storage": dict(SQLiteStorage=fake),
        "trackio.utils": dict(TRACKIO_DIR=tmp_path / "trackio"),
    }.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("TRACKIO_DIR", "elsewhere")
    return fake


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "true")
    return fake


def test_all_row_numbers_are_scalars_at_the_time_of_the_run(tmp_path: Path):
    run = read_run(write_run(tmp_path))
    rows = points(run)
    assert [row.step for row in rows] == STEPS
    assert [row.values for row in rows] == SCALARS
    seconds = [row.time - rows[0].time for row in rows]
    assert seconds == pytest.approx([row["seconds"] - 1.0 for row in ROWS], abs=1e-5)


def test_numbers_of_a_table_in_a_row_are_scalars_under_its_name(tmp_path: Path):
    path = write_run(tmp_path)
    with (path / "rows.jsonl").open("a") as file:
        row = dict(step=21, noise=dict(scale=8.0, note="x", low=None, sure=True), note="x")
        file.write(json.dumps(row) + "\n")
    assert points(read_run(path))[-1].values == {"noise/scale": 8.0}


def test_trackio_gets_every_scalar_of_every_run_at_its_time(tmp_path: Path, trackio: FakeTrackio):
    paths = [write_run(tmp_path, seed=seed) for seed in (1, 2)]
    assert main(["export", "--trackio", str(tmp_path)]) == 0
    assert set(trackio.runs) == {(tmp_path.name, path.name) for path in paths}
    for path in paths:
        run = read_run(path)
        *rows, final = trackio.runs[tmp_path.name, path.name]
        assert [row[0] for row in rows] == STEPS
        assert [row[1] for row in rows] == SCALARS
        times = [datetime.fromisoformat(row[2]).timestamp() for row in rows]
        assert times == pytest.approx([point.time for point in points(run)], abs=1e-3)
        assert rows[0][3] == settings(run)
        assert final[:2] == (200, {"loss/final over tokens": 4.0})


def test_wandb_gets_every_scalar_of_every_run_offline(tmp_path: Path, wandb: FakeWandb):
    paths = sorted(write_run(tmp_path, seed=seed) for seed in (1, 2))
    assert main(["export", "--wandb", str(tmp_path)]) == 0
    assert [run.id for run in wandb.runs] == [path.name for path in paths]
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"
    for path, copy in zip(paths, wandb.runs, strict=True):
        rows = points(read_run(path))
        assert copy.finished
        assert copy.offline
        assert (copy.project, copy.group, copy.job_type) == (tmp_path.name, "adamw", "train")
        expected = [(row.step, {**row.values, "_timestamp": row.time}) for row in rows]
        assert copy.rows == expected
        assert copy.summary == {"loss/final over tokens": 4.0, "tokens": 200}
        assert copy.settings.disable_git
        assert copy.settings.x_disable_meta


def grow(path: Path) -> None:
    with (path / "rows.jsonl").open("a") as file:
        file.write(json.dumps(dict(step=21, tokens=210, seconds=9.0, loss=0.5)) + "\n")


def test_trackio_is_written_anew_only_where_a_run_has_grown(
    tmp_path: Path, trackio: FakeTrackio, capsys: pytest.CaptureFixture[str]
):
    first, _ = (write_run(tmp_path, seed=seed) for seed in (1, 2))
    command = ["export", "--trackio", str(tmp_path)]
    assert main(command) == 0
    capsys.readouterr()
    grow(first)
    assert main(command) == 0
    assert "1 runs written, 1 were there already" in capsys.readouterr().out
    assert len(trackio.runs[tmp_path.name, first.name]) == 5
    (tmp_path / "trackio" / f"{tmp_path.name}.db").unlink()
    assert main(command) == 0
    assert "2 runs written." in capsys.readouterr().out


def test_wandb_is_written_anew_only_where_a_run_has_grown(
    tmp_path: Path, wandb: FakeWandb, capsys: pytest.CaptureFixture[str]
):
    first, _ = (write_run(tmp_path, seed=seed) for seed in (1, 2))
    command = ["export", "--wandb", str(tmp_path)]
    assert main(command) == 0
    capsys.readouterr()
    grow(first)
    assert main(command) == 0
    assert "1 runs written, 1 were there already" in capsys.readouterr().out
    assert len(wandb.runs) == 3
    kept = tmp_path / "wandb" / first.name / "wandb"
    assert len(list(kept.glob("offline-run-*"))) == 1
    shutil.rmtree(kept)
    assert main(command) == 0
    assert "1 runs written, 1 were there already" in capsys.readouterr().out


def test_one_run_is_taken_by_its_own_folder(tmp_path: Path, wandb: FakeWandb):
    write_run(tmp_path, seed=1)
    path = write_run(tmp_path, seed=2)
    assert main(["export", "--wandb", str(path), "--out", str(tmp_path / "copy")]) == 0
    assert [run.id for run in wandb.runs] == [path.name]
    assert (tmp_path / "copy" / path.name / "wandb").is_dir()


def test_trackio_in_use_with_another_folder_is_refused(
    tmp_path: Path, trackio: FakeTrackio, capsys: pytest.CaptureFixture[str]
):
    write_run(tmp_path)
    assert main(["export", "--trackio", str(tmp_path), "--out", str(tmp_path / "other")]) == 2
    assert "this process already uses trackio" in capsys.readouterr().err
    assert not trackio.calls


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_without_the_package_the_way_to_it_is_told(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    write_run(tmp_path)
    monkeypatch.setenv("TRACKIO_DIR", "elsewhere")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "true")
    monkeypatch.setitem(sys.modules, name, None)
    assert main(["export", f"--{name}", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"pip install 'mars-optim[{name}]'" in error
    assert len(error.splitlines()) == 1


def run_mars(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mars_optim", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


READ_TRACKIO = """
import json, sys
from trackio.sqlite_storage import SQLiteStorage
project, = SQLiteStorage.get_projects()
runs = SQLiteStorage.get_runs(project)
print(json.dumps({run: SQLiteStorage.get_logs(project, run) for run in runs}))
"""


def test_trackio_itself_reads_every_scalar_back(tmp_path: Path):
    pytest.importorskip("trackio")
    paths = [write_run(tmp_path, seed=seed) for seed in (1, 2)]
    command = ["export", "--trackio", str(tmp_path)]
    server = {"TRACKIO_SERVER_URL": "http://127.0.0.1:9"}  # which init would log to
    assert "2 runs written" in run_mars(*command, **server)
    grow(paths[0])
    assert "1 runs written, 1 were" in run_mars(*command, **server)
    there = subprocess.run(
        [sys.executable, "-c", READ_TRACKIO],
        env=os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio")},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(there.stdout)
    assert set(found) == {path.name for path in paths}
    for path in paths:
        rows = [
            {**row.values, "step": row.step} for row in points(read_run(path)) if row.values
        ] + [{"loss/final over tokens": 4.0, "step": 200}]
        logs = [{k: v for k, v in log.items() if k != "timestamp"} for log in found[path.name]]
        assert logs == rows


def wandb_records(folder: Path) -> list[Any]:
    """The records of the one offline run below ``folder``: a LevelDB log of protocol buffers."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    content, at, part, records = file.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # padding at the end of a block
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        part += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            records.append(Record.FromString(part))
            part = b""
    return records


def test_wandb_keeps_all_scalars_offline_in_any_environment(tmp_path: Path):
    pytest.importorskip("wandb")
    path = write_run(tmp_path)
    out = run_mars("export", "--wandb", str(tmp_path), WANDB_MODE="online")
    assert "1 runs written" in out
    history: dict[int, dict[str, Any]] = {}
    for record in wandb_records(tmp_path / "wandb" / path.name):
        if record.WhichOneof("record_type") == "history":
            items = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            history.setdefault(items["_step"], {}).update(items)
    rows = points(read_run(path))
    assert set(history) == {10, 20}
    for row in rows:
        at = history[row.step]
        assert {key: at[key] for key in row.values} == row.values
        assert at["_timestamp"] == pytest.approx(row.time, abs=1e-3)

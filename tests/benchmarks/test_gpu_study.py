"""The study on a GPU, gone through on a CPU with a tiny model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu_study import __main__ as command
from benchmarks.gpu_study import state as states
from benchmarks.gpu_study import study, timing
from benchmarks.output import UserError
from tests.support.gpu_studies import call, looks, numbers, tiny_plan, tiny_text

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The state after one call without a limit, compiled in a process that has compiled nothing."""
    torch._dynamo.reset()
    done, state = call(tiny_plan(), data, tmp_path_factory.mktemp("whole"))
    assert done
    return state


def script(*arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": python, "OMP_NUM_THREADS": "1"}
    command = ["benchmarks/gpu_study.sh", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_short_runs_come_first_then_seed_by_seed(whole: dict[str, Any]) -> None:
    order = [(run["length"], run["seed"], run["arm"]) for run in whole["runs"].values()]
    short = [(10, 0, arm) for arm in ("adamw", "nadamw-auto") for _ in range(4)]
    assert order == [*short, (20, 1, "adamw"), (20, 1, "nadamw-auto")]
    assert {run["status"] for run in whole["runs"].values()} == {"finished"}


@pytest.mark.slow
def test_all_models_share_one_compiled_graph(whole: dict[str, Any]) -> None:
    (log,) = whole["calls"]
    assert log["compiled"]
    assert log["graphs"] == 1
    assert len(whole["runs"]) == 10
    assert log["said"][-1] == "all runs are done"


@pytest.mark.slow
def test_stopped_study_ends_with_the_same_numbers(
    whole: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    done, calls = False, 0
    while not done:
        done, state = call(tiny_plan(), data, tmp_path, limit=looks(14))
        calls += 1
    said = [line for log in state["calls"] for line in log["said"]]
    assert calls == len(state["calls"]) > 6
    assert sum("is cut after step" in line for line in said) > 4
    assert list(state["runs"]) == list(whole["runs"])
    assert numbers(state) == numbers(whole)
    assert not list((tmp_path / "under-way").iterdir())


@pytest.mark.slow
def test_cut_run_begins_anew_where_its_checkpoint_is_gone(
    whole: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    done, state = call(tiny_plan(), data, out, limit=looks(19), scratch=scratch)
    assert not done
    assert len(state["runs"]) == 1
    assert any(scratch.rglob("position.json"))
    shutil.rmtree(scratch)
    done, state = call(tiny_plan(), data, out, scratch=scratch)
    assert done
    assert numbers(state) == numbers(whole)


@pytest.mark.slow
def test_timing_is_taken_once_for_each_device(data: Path, tmp_path: Path) -> None:
    plan = tiny_plan("adamw", timed=("muon-auto", "adamw"))
    plan = replace(plan, arms={**plan.arms, "muon-auto": tiny_plan("muon-auto").arms["muon-auto"]})
    _, state = call(plan, data, tmp_path, limit=looks(1))
    rules = state["timing"]["cpu"]["rules"]
    assert list(rules) == ["adamw", "muon-auto"]
    assert rules["adamw"]["ratio"] == {"median": 1.0, "q1": 1.0, "q3": 1.0}
    assert rules["muon-auto"]["ratio"]["median"] > 1.0
    assert 0.0 < rules["muon-auto"]["share"]["median"] < 1.0
    _, again = call(plan, data, tmp_path, limit=looks(1))
    assert again["timing"] == state["timing"]


def test_arm_that_cannot_be_timed_is_told_of(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = timing.build_optimizer

    def fails(model: Any, arm: Any, **options: Any) -> Any:
        if arm.rule == "lion":
            raise RuntimeError("no kernel")
        return build(model, arm, **options)

    monkeypatch.setattr(timing, "build_optimizer", fails)
    plan = tiny_plan("adamw", timed=("adamw", "lion", "nadamw"))
    _, state = call(plan, data, tmp_path, limit=looks(1))
    assert list(state["timing"]["cpu"]["rules"]) == ["adamw", "nadamw"]
    assert state["calls"][0]["said"][0] == "lion is not timed: RuntimeError: no kernel"


@pytest.mark.slow
def test_failing_arm_is_left_out_and_the_rest_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = study.carry_out

    def fails(spec: Any, *others: Any) -> Any:
        if spec.arm_name == "nadamw-auto":
            raise RuntimeError("no kernel\nfor this")
        return train(spec, *others)

    monkeypatch.setattr(study, "carry_out", fails)
    done, state = call(tiny_plan(), data, tmp_path)
    assert done
    failed = [run for run in state["runs"].values() if run["arm"] == "nadamw-auto"]
    assert [(run["status"], run["tries"]) for run in failed] == [("failed", 2)] * 4
    assert failed[0]["reason"] == "RuntimeError: no kernel for this"
    long = [run["arm"] for run in state["runs"].values() if run["length"] == 20]
    assert long == ["adamw"]


def test_call_ends_where_the_device_is_lost(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any) -> Any:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(study, "carry_out", fails)
    monkeypatch.setattr(study, "device_answers", lambda device: False)
    done, state = call(tiny_plan(), data, tmp_path)
    assert not done
    assert [run["tries"] for run in state["runs"].values()] == [1]


def test_study_goes_on_uncompiled_where_compiling_fails(data: Path, tmp_path: Path) -> None:
    plan = tiny_plan("adamw")
    plan = replace(plan, execution=replace(plan.execution, compile_backend="no such backend"))
    _, state = call(plan, data, tmp_path, limit=looks(12))
    assert not state["calls"][0]["compiled"]
    assert "torch.compile does not work here" in state["calls"][0]["said"][0]
    assert [run["status"] for run in state["runs"].values()] == ["finished"]


def test_folder_of_another_study_is_refused(data: Path, tmp_path: Path) -> None:
    call(tiny_plan("adamw"), data, tmp_path, limit=looks(1))
    with pytest.raises(UserError, match=r"of another study \(plan differs\): give an OUT"):
        call(tiny_plan("adamw", seeds=2), data, tmp_path, limit=looks(1))


def test_a_study_of_another_text_names_its_own(tmp_path: Path) -> None:
    asked = {"rehearsal": True, "plan": {}, "data": "one"}
    state = states.begin(tmp_path, asked)
    state["text"] = {"package": "linux-source-6.1", "version": "6.1.1-1"}
    states.save(tmp_path, state)
    with pytest.raises(UserError, match=r"data differs.* begun with, linux-source-6\.1 6\.1\.1-1"):
        states.begin(tmp_path, asked | {"data": "other"})


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_script_says_in_one_line_that_there_is_no_gpu(data: Path, tmp_path: Path) -> None:
    done = script("run", str(data), str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "no CUDA GPU here" in done.stderr
    assert not (tmp_path / "out").exists()


def test_script_unpacks_wheels_where_imports_are_missing(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "one-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("one_module.py", "")
    bare = tmp_path / "python"  # imports nothing; instead of the study it shows what it could
    bare.write_text(
        "#!/bin/bash\n"
        '[ "$1" = -c ] && exit 1\n'
        f'[ "$2" = zipfile ] && exec {sys.executable} "$@"\n'
        'ls ${PYTHONPATH//:/ }; echo "$@"\n'
    )
    bare.chmod(0o755)
    done = script("run", str(tmp_path), "OUT", python=str(bare))
    assert done.returncode == 0, done.stderr
    assert "one_module.py" in done.stdout.split()
    assert done.stdout.splitlines()[-1] == f"-m benchmarks.gpu_study run {tmp_path} OUT"


@pytest.mark.slow
def test_script_stops_at_its_minutes_and_reports(data: Path, tmp_path: Path) -> None:
    done = script("run", str(data), str(tmp_path), "--rehearse", "--minutes", "0.001")
    assert done.returncode == 0, done.stderr
    assert "the same command goes on" in done.stdout
    state = json.loads((tmp_path / "study.json").read_text())
    assert state["rehearsal"] is True
    assert len(state["timing"]["cpu"]["rules"]) == 10
    shown = script("report", str(tmp_path))
    assert shown.stdout.startswith("# GPU study (rehearsal: the numbers mean nothing)")
    assert "| muon-auto |" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "DATA/none", "OUT", "--rehearse"], "DATA = '.*' does not exist"),
        (["run", "EMPTY", "OUT", "--rehearse"], "does not exist.*gpu_study.sh prepare DATA"),
        (["run", "DATA", "FILE", "--rehearse"], "cannot be made .*give a folder"),
        (["run", "DATA", "OUT", "--rehearse", "--minutes", "0"], "must be above 0"),
        (["report", "EMPTY"], r"study.json does not exist; `gpu_study.sh run DATA OUT` writes"),
        (["report", "OTHER"], "holds no study"),
    ],
)
def test_wrong_argument_is_one_line_with_a_way_out(
    arguments: list[str], message: str, data: Path, tmp_path: Path
) -> None:
    places = {name: tmp_path / name.lower() for name in ("OUT", "EMPTY", "OTHER", "FILE")}
    places["EMPTY"].mkdir()
    places["OTHER"].mkdir()
    (places["OTHER"] / "study.json").write_text("{}")
    places["FILE"].write_text("")
    for name, path in {"DATA": data, **places}.items():
        arguments = [word.replace(name, str(path)) for word in arguments]
    with pytest.raises(UserError, match=message) as found:
        command.main(arguments)
    assert "\n" not in str(found.value)

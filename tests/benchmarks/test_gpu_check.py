"""The check on a GPU, as far as it goes without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu

ROOT = Path(__file__).parents[2]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(ROOT / "src")
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_check_says_in_one_line_that_there_is_no_gpu(tmp_path: Path) -> None:
    done = run("benchmarks/gpu.sh", str(tmp_path / "gpu.json"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "no CUDA GPU here" in done.stderr
    assert not (tmp_path / "gpu.json").exists()


def test_an_interpreter_without_torch_is_named() -> None:
    environment = {**os.environ, "PYTHON": "/bin/false"}
    done = subprocess.run(
        ["benchmarks/gpu.sh"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == (
        "benchmarks/gpu.sh: /bin/false has no torch: set PYTHON to an interpreter that has\n"
    )


@pytest.mark.slow
def test_check_can_be_rehearsed_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = run(sys.executable, "-m", "benchmarks.gpu", "--rehearse", "--out", str(out))
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["rehearsal"] is True
    # the CPU's paths round half precision after every operation: no check of Triton's
    whole = {name: row for name, row in report["parity"].items() if name.endswith("float32")}
    assert all(row["within"] for row in whole.values()), whole
    variants = report["step_times, tiny"]["variants"]
    counted = {name: row["bytes_per_parameter"] for name, row in variants.items()}
    assert counted["torch AdamW fused"] == counted["MARSAdamW folded"] == 28
    assert counted["MARSAdamW"] == 44
    assert counted["MARSAdamW bf16 history"] == 38


def test_a_part_that_fails_loses_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    made = {"copy_bandwidth_gb_per_s": lambda: 2.0, "graph": fails, "never_waits": lambda: True}
    monkeypatch.setattr(gpu, "parts", lambda *, rehearse: made)
    monkeypatch.setattr(sys, "argv", ["gpu", "--rehearse", "--out", str(tmp_path / "gpu.json")])
    assert gpu.main() == 1
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["graph"] == {
        "failed": "RuntimeError: operation not permitted when stream is capturing"
    }
    assert report["never_waits"] is True
    assert "wrong: graph\n" in capsys.readouterr().out


def test_the_report_is_on_disk_before_the_next_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed() -> None:
        raise KeyboardInterrupt

    made = {"copy_bandwidth_gb_per_s": lambda: 2.0, "tests": killed}
    monkeypatch.setattr(gpu, "parts", lambda *, rehearse: made)
    with pytest.raises(KeyboardInterrupt):
        gpu.run(tmp_path / "gpu.json", rehearse=True)
    assert json.loads((tmp_path / "gpu.json").read_text())["copy_bandwidth_gb_per_s"] == 2.0


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        (False, True),
        (True, False),
        ({"failed": "why"}, True),
        ({"passed": False, "summary": ""}, True),
        ({"replay_equals_eager": True}, False),
        ({"replay_equals_eager": False}, True),
    ],
)
def test_what_does_not_hold_is_named(part: object, wrong: bool) -> None:
    assert gpu.failed({"part": part}) == ["part"] * wrong
    assert gpu.failed({"parity": {"lion": {"within": not wrong}}}) == ["parity"] * wrong


@pytest.mark.slow
def test_gpu_tests_import_only_what_is_named() -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['pydantic', 'tomlkit', 'cyclopts', 'rich', 'optuna']))\n"
        "import pytest\n"
        "from benchmarks.gpu_checks import gpu_files\n"
        "raise SystemExit(pytest.main([*map(str, gpu_files()), '--collect-only', '-q', '-m', 'gpu',"
        " '-p', 'no:cacheprovider', '-n', '0']))"
    )
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "test_triton_on_gpu.py" in done.stdout


def test_shapes_are_those_of_gpt2_small() -> None:
    code = (
        "from math import prod; from benchmarks.gpu import SHAPES;"
        "its = SHAPES['GPT-2 small']; print(len(its), sum(map(prod, its)))"
    )
    assert run(sys.executable, "-c", code).stdout.split() == ["148", "124439808"]

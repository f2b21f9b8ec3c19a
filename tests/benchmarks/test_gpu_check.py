"""The check on a GPU, as far as it goes without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
    variants = report["step_times"]["tiny"]["variants"]
    counted = {name: row["bytes_per_parameter"] for name, row in variants.items()}
    assert counted["torch AdamW fused"] == counted["MARSAdamW folded"] == 28
    assert counted["MARSAdamW"] == 44
    assert counted["MARSAdamW bf16 history"] == 38


def test_shapes_are_those_of_gpt2_small() -> None:
    code = (
        "from math import prod; from benchmarks.gpu import gpt2_small as f;"
        "print(len(f()), sum(map(prod, f())))"
    )
    assert run(sys.executable, "-c", code).stdout.split() == ["148", "124439808"]

"""megatron-core itself, on a CPU: registered, trained, saved, resumed, cut over two processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("megatron.core")

ROOT = Path(__file__).parents[3]


def run(folder: Path, tensor_parallel: int, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Findings of the first of ``tensor_parallel`` processes."""
    folder.mkdir()
    worker = [sys.executable, "-W", "ignore", "-m", "tests.integrations.real.megatron_ranks"]
    given = [str(tensor_parallel), str(tensor_parallel), str(folder), name, json.dumps(options)]
    processes = [
        subprocess.Popen([*worker, str(rank), *given], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for rank in range(tensor_parallel)
    ]
    for process in processes:
        _, words = process.communicate(timeout=300)
        assert process.returncode == 0, words[-3000:]
    found: dict[str, Any] = json.loads((folder / "rank0.json").read_text())
    return found


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("MARSAdamW", {}),
        ("MARSAdamW", {"gamma": "auto"}),
        ("MARSLion", {"correction": "folded"}),
        ("MARSM", {}),
    ],
)
def test_it_trains_saves_and_resumes_to_the_same_bits(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    found = run(tmp_path / "one", 1, name, {"lr": 1e-2, **options})
    assert found["resumed"] == found["whole"]


@pytest.mark.parametrize("name", ["MARSM", "MARSShampoo", "MARSAdamW"])
def test_two_tensor_parallel_processes_train_like_one(name: str, tmp_path: Path) -> None:
    options = {"lr": 1e-2, "gamma": 0.1}
    one = run(tmp_path / "one", 1, name, options)
    two = run(tmp_path / "two", 2, name, options)
    assert two["resumed"] == two["whole"]
    for whole, put_together in zip(one["whole"], two["whole"], strict=True):
        torch.testing.assert_close(
            torch.tensor(put_together), torch.tensor(whole), rtol=1e-4, atol=1e-5
        )

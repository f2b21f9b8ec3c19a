"""The fault of the guarded example does harm, and the guard takes the harm away."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

EXAMPLE = ROOT / "examples" / "guarded_run.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not EXAMPLE.exists(), reason="examples are not in this copy"),
]


def final_loss(out: Path, *options: str) -> float:
    command = [sys.executable, "-W", "error", str(EXAMPLE), "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (end,) = [line for line in done.stdout.splitlines() if line.startswith("step 500")]
    return float(end.split()[-1])


def events(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "guard.jsonl").read_text().splitlines()]


def test_guard_catches_lr_times_30_and_final_loss_is_undisturbed(
    tmp_path: Path,
) -> None:
    undisturbed = final_loss(tmp_path / "undisturbed", "--fault", "none")
    unguarded = final_loss(tmp_path / "unguarded", "--guard", "off")
    guarded = final_loss(tmp_path / "guarded")
    assert unguarded > undisturbed + 0.15
    assert guarded < undisturbed + 0.03

    assert "rollback" not in {e["event"] for e in events(tmp_path / "undisturbed")}
    (back,) = [e for e in events(tmp_path / "guarded") if e["event"] == "rollback"]
    assert back["signal"] in ("loss", "nonfinite")
    assert 260 < back["since"] <= back["step"] <= 285  # the fault is put in at step 260
    assert back["to_step"] <= 260
    assert back["clean"]
    assert back["optimizer"] == "AdamW"

"""A pilot small enough to be run again and again, in real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SMALL = {
    "training.steps": "12",
    "training.eval_tokens": "1024",
    "training.evaluations": "2",
    "task.context": "16",
    "task.width": "16",
    "task.heads": "1",
    "task.layers": "1",
    "task.batch": "4",
    "comparison.seeds": "[1, 2]",
    "comparison.ladder": "[0.5, 0.75, 1.5]",
    "comparison.others": "always",
    "decision.looks": "once",
    "tuning.trials": "2",
    "tuning.max_trials": "3",
}


class Pilot:
    """The command ``mars pilot`` on one folder."""

    def __init__(self, out: Path, corpus: Path) -> None:
        self.out = out
        self.options = dict(SMALL, **{"task.corpus": f'"{corpus}"'})

    def command(self, **changes: str) -> list[str]:
        options = {**self.options, **changes}
        sets = [part for key, value in options.items() for part in ("--set", f"{key}={value}")]
        return [*MARS, "pilot", "--out", str(self.out), "--workers", "2", *sets]

    def run(self, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(**changes), capture_output=True, text=True, timeout=240, check=False
        )

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finished(self) -> dict[str, Path]:
        manifests = (self.out / "runs").glob("*/manifest.json")
        return {m.parent.name: m for m in manifests if json.loads(m.read_text())["outcome"]}

    def losses(self) -> dict[str, float]:
        """Final loss of every finished run."""
        found = self.finished().items()
        return {run: json.loads(m.read_text())["outcome"]["final_loss"] for run, m in found}

    def verdict(self) -> dict[str, Any]:
        return json.loads((self.out / "verdict.json").read_text())  # type: ignore[no-any-return]


MARS = [sys.executable, "-m", "mars_optim"]

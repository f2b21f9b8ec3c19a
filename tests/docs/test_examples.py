"""Every example runs, and learns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# those that are plain.py, or it and one thing more
EXAMPLES = [
    path
    for path in sorted((ROOT / "examples").glob("*.py"))
    if path.stem == "plain" or "plain.py and one thing more" in path.read_text(encoding="utf-8")
]


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_the_example_runs_and_its_loss_falls(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    losses = [float(line.split("loss")[1]) for line in done.stdout.splitlines()]
    assert len(losses) == 5
    assert losses[-1] < 0.5 * losses[0]


def test_each_example_differs_from_the_plain_one_in_little() -> None:
    plain = set((EXAMPLES[0].parent / "plain.py").read_text().splitlines())
    for path in EXAMPLES:
        added = [x for x in path.read_text().splitlines() if x.strip() and x not in plain]
        assert len(added) <= 16, path

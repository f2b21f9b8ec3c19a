"""Runs of others: the choice of their rates is in the interval, or is said not to be."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path

import pytest

from mars_optim.cli import main

OPTIMUM = {"adamw": 2**0.5, "mine": 2**-0.5}  # between the rates of the grid
GRID = (0.25, 0.5, 1.0, 2.0, 4.0)


def loss(arm: str, lr: float, seed: int, steps: int) -> float:
    rng = random.Random(f"{arm} {lr} {seed} {steps}")
    level = random.Random(seed).gauss(0.0, 0.02)
    octaves = math.log2(lr / OPTIMUM[arm])
    return 4.0 - 0.5 * math.log(steps / 100) + 0.05 * octaves**2 + level + rng.gauss(0.0, 0.003)


def write(folder: Path, arm: str, lr: float, seed: int, steps: int = 100) -> None:
    rows = [{"step": 1, "loss": 9.0}, {"step": steps, "valid_loss": loss(arm, lr, seed, steps)}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{arm}-lr{lr:g}-seed{seed}-steps{steps}.jsonl").write_text(text)


def compared(folder: Path) -> None:
    """Both at a rate half a step off their best, on either side: nothing between them."""
    for seed in (1, 2, 3, 4):
        for steps in (50, 100, 200):
            write(folder, "adamw", 2.0, seed, steps)
        write(folder, "mine", 0.5, seed)


def report(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, object], str]:
    pattern = str(folder) + "/{arm}-lr{lr}-seed{seed}-steps{steps}.jsonl"
    out = folder / "report"
    assert main(["report", str(out), "--from", pattern, "--set", "candidate=mine"]) == 0
    return json.loads((out / "verdict.json").read_text()), capsys.readouterr().out


def test_report_without_trials_says_learning_rates_are_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    compared(tmp_path)
    verdict, said = report(tmp_path, capsys)
    assert "for these learning rates only" in str(verdict["sentence"])
    assert "for these learning rates only" in said
    html = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "for these learning rates only" in re.sub("<[^>]*>", "", html)


def test_with_trials_the_choice_of_the_rates_is_in_the_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    compared(tmp_path)
    for arm in OPTIMUM:
        for lr in GRID:
            write(tmp_path, arm, lr, 9)
    verdict, said = report(tmp_path, capsys)
    assert "for these learning rates only" not in str(verdict["sentence"])
    assert "10 more are trials of other learning rates" in said
    saved, here = verdict["tokens_saved"], verdict["arms"]["mine"]["tokens_saved_at_these_rates"]  # type: ignore[index]
    assert saved["low"] < 0.0 < saved["high"]  # type: ignore[index]
    assert saved["high"] - saved["low"] > here["high"] - here["low"]  # type: ignore[index]
    assert verdict["arms"]["mine"]["lr"] == 0.5  # type: ignore[index]


@pytest.mark.slow
def test_a_rate_that_the_trials_show_to_be_bad_does_not_decide(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """AdamW was run four times above its best rate: by its runs alone the other saves tokens."""
    for seed in (1, 2, 3, 4):
        for steps in (50, 100, 200):
            write(tmp_path, "adamw", 4.0, seed, steps)
        write(tmp_path, "mine", 0.5, seed)
    verdict, _ = report(tmp_path, capsys)
    assert verdict["verdict"] == "go"
    for arm in OPTIMUM:
        for lr in GRID:
            write(tmp_path, arm, lr, 9)
    verdict, _ = report(tmp_path, capsys)
    saved = verdict["tokens_saved"]
    assert verdict["verdict"] != "go"
    assert saved["low"] < 0.0 < saved["high"]  # type: ignore[index]


def test_runs_of_one_name_at_unknown_learning_rates_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    compared(tmp_path)
    write(tmp_path, "mine", 1.0, 1)
    pattern = str(tmp_path) + "/{arm}-lr*-seed{seed}-steps{steps}.jsonl"
    out = str(tmp_path / "report")
    assert main(["report", out, "--from", pattern, "--set", "candidate=mine"]) == 2
    assert "put {lr} in the pattern" in capsys.readouterr().err

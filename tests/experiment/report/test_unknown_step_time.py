"""Where a step cannot be told from a command's start, no hours and no money are made of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mars_optim.cli import main
from mars_optim.files import read_json, write_json
from tests.support.scored_pilot import COMMAND, METRIC, write_scored

BASE = {1: 0.0, 2: 0.01, 3: -0.01}
AHEAD = {seed: lag - 0.25 + 0.003 * seed for seed, lag in BASE.items()}
PRICE = ("cost.price_per_hour=2.5", "cost.planned_hours=1000")


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_an_unknown_step_time_gives_no_hours_and_no_money(tmp_path: Path, lang: str):
    write_scored(tmp_path, {"adamw": BASE, "mars-adamw": AHEAD}, *METRIC, *PRICE, task=COMMAND)
    rows = read_json(tmp_path / "probe.json")
    rows["mars-adamw"] |= dict(ratio=None, ratio_low=None, ratio_high=None)
    write_json(tmp_path / "probe.json", rows)
    assert main(["report", str(tmp_path), "--lang", lang]) == 0
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert verdict["verdict"] == "go"
    assert verdict["arms"]["mars-adamw"]["step_time_ratio"] is None
    assert verdict["hours_saved"] is None
    text = next(tmp_path.glob("report*.md")).read_text()
    assert text.count("running.probe\\_steps=N") + text.count("running.probe_steps=N") == 1

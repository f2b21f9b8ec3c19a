"""Progress says rates and the time left: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from mars_optim.cli import progress as module
from mars_optim.cli.progress import Progress
from mars_optim.experiment.pilot.standing import Standing, speed
from tests.support.terminal import Terminal

RATE = re.compile(r"[\d,.]+ steps/s")


@pytest.mark.parametrize(
    ("per_second", "text"),
    [
        (12.34, "12.3 steps/s"),
        (1.0, "1 steps/s"),
        (0.25, "4 s a step"),
        (12345.6, "12,346 steps/s"),
    ],
)
def test_a_rate_below_one_is_told_as_time(per_second: float, text: str):
    assert speed(per_second, "steps") == text


def test_a_pilots_headline_has_its_rate():
    standing = Standing(
        state="running", done_runs=1, planned_runs=9, seconds_gone=61, seconds_left=120, rate=50
    )
    assert standing.headline == "1 of 9 runs done, 1:01 gone, about 2:00 left, 50 steps/s"


def test_lines_say_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    now = iter([100.0, 120.0, 140.0, 141.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    with Progress() as shown:
        shown("work", 0, 100, "steps")
        shown("work", 20, 100, "steps")
        shown("work", 100, 100, "steps")
        shown("work", 100, 100, "steps")
    assert capsys.readouterr().err.splitlines() == [
        "work: 0 %",
        "work: 20 %, 1 steps/s, about 1:20 left",
        "work: 100 %, 2.5 steps/s",
    ]


def test_a_unit_may_be_large(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    now = iter([0.0, 10.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    with Progress() as shown:
        shown("tokens", 0, 4e7, "MB", 1e6)
        shown("tokens", 2e7, 4e7, "MB", 1e6)
    assert "2 MB/s, about 0:10 left" in capsys.readouterr().err


@pytest.mark.slow
def test_mars_plan_shows_rates_on_a_terminal(tmp_path: Path):
    (tmp_path / "text.txt").write_text("It was the best of times, it was the worst. " * 4000)
    small = ["corpus='text.txt'", "context=16", "width=16", "heads=1", "layers=1", "batch=4"]
    settings = [f"--set=task.{setting}" for setting in small]
    settings += ["--set=training.steps=400", "--set=training.eval_tokens=256"]
    command = [sys.executable, "-m", "mars_optim", "plan", *settings]
    with Terminal(command, tmp_path) as terminal:
        terminal.expect("nothing is written")
        terminal.expect("Training 12 times for a short while, ")
        assert re.search(r"about \d+:\d\d \.\.\.$", terminal.expect(" ..."))
        terminal.expect("steps/s", 120)
        assert RATE.search(terminal.text)
        terminal.expect("This pilot:", 120)
        assert terminal.ended() == 0
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt"}

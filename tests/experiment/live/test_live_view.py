"""The live page of a pilot: the verdict so far or why there is none, runs, cost."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mars_optim.experiment.live import render
from mars_optim.experiment.live.curves import MOST_POINTS, thinned
from mars_optim.experiment.live.view import View, view_of
from mars_optim.experiment.live.watcher import Watcher
from mars_optim.experiment.pilot.status import take
from mars_optim.experiment.plan import RunSpec
from mars_optim.experiment.records import Failure
from mars_optim.experiment.records.run import record_failure
from mars_optim.experiment.report import Messages
from mars_optim.experiment.report.messages import catalogue
from mars_optim.files import write_json
from tests.support.pretend_pilot import status, unfinished_run
from tests.support.written_pilot import write_pilot


def pilot(out: Path, *without: int, looks: str = "once", **plan: str) -> Path:
    """A pilot that is running, without the runs of some seeds."""
    write_pilot(out, speedup=1.3, decision__looks=f'"{looks}"', **plan)
    for seed in without:
        for folder in (out / "runs").glob(f"*-seed{seed}-*"):
            shutil.rmtree(folder)
    status(out, planned_runs=39)
    return out


def seen(out: Path) -> View:
    return view_of(take(out), Messages())


def test_a_plan_of_one_look_shows_no_interval_and_says_why(tmp_path: Path) -> None:
    verdict = seen(pilot(tmp_path / "pilot", 5)).verdict
    assert verdict.title == "The verdict comes when all runs are in"
    assert "wrong more often than the interval says" in verdict.lead
    assert (verdict.tiles, verdict.reasons) == ((), ())


def test_the_one_look_comes_when_no_run_is_missing(tmp_path: Path) -> None:
    verdict = seen(pilot(tmp_path / "pilot")).verdict
    assert (verdict.kind, verdict.title) == ("go", "Go")
    assert "95 % interval" in verdict.lead
    assert verdict.tiles[0].value == "23 %"


def test_a_plan_of_many_looks_shows_its_verdict_so_far(tmp_path: Path) -> None:
    out = pilot(tmp_path / "pilot", 4, 5, looks="every-pair")
    verdict = seen(out).verdict
    assert (verdict.kind, verdict.title) == ("go", "Go, so far")
    assert verdict.lead.endswith("you may look whenever you like.")
    wide, narrow = (seen(o).verdict.tiles[0].detail for o in (out, pilot(tmp_path / "whole")))
    assert wide != narrow


def test_before_the_first_look_there_is_no_verdict(tmp_path: Path) -> None:
    out = pilot(tmp_path / "pilot", 3, 4, 5, looks="every-pair")
    verdict = seen(out).verdict
    assert verdict.title == "No verdict before the first look"
    assert "from 3 pairs on. So far there are 2." in verdict.lead
    shutil.rmtree(out / "runs")
    (out / "runs").mkdir()
    assert "So far there are 0." in seen(out).verdict.lead


def test_a_pilot_that_ended_with_runs_missing_decides_nothing(tmp_path: Path) -> None:
    out = pilot(tmp_path / "pilot", 5)
    status(out, state="ended")
    verdict = seen(out).verdict
    assert (verdict.title, verdict.kind) == ("Not enough runs to tell", "not-enough-runs")
    assert "still lacks" in verdict.lead


def test_the_table_has_runs_under_way_first_then_failed_ones(tmp_path: Path) -> None:
    out = pilot(tmp_path / "pilot", 4, 5)
    going = unfinished_run(out, "mars-adamw", seed=4, steps=1000, rows=3)
    failed = unfinished_run(out, "nadamw", seed=4, steps=1000, rows=2)
    spec = json.loads((out / "runs" / failed / "manifest.json").read_text())["spec"]
    failure = Failure("failed", "RuntimeError: out of memory\n" + "x" * 500)
    record_failure(out / "runs", RunSpec.from_dict(spec), failure)
    status(out, running={going: 333}, planned_runs=39)
    first, second, third, *_ = seen(out).runs.rows
    assert [cell.text for cell in first[:5]] == ["mars-adamw", "33 %", "2.5000", "1\u00d7", "4"]
    assert first[1].detail == "step 333 of 1,000"
    assert first[6].text == "51.2 k tokens/s"
    assert second[1].text == "failed"
    assert second[1].detail.startswith("tried 1 time; failed: RuntimeError: out of memory xxx")
    assert len(second[1].detail) < 230
    assert third[1].text == "done"
    budgets = {(row[0].detail, row[3].text) for row in seen(out).runs.rows}
    assert ("ladder", "0.5\u00d7") in budgets
    assert ("comparison", "1\u00d7") in budgets


def test_runs_under_way_cost_money_too(tmp_path: Path) -> None:
    out = pilot(tmp_path / "pilot", 5, cost__price_per_hour="36000", cost__budget="9000")
    before = take(out)
    assert before.interim is not None
    seconds = before.interim.totals.seconds
    run = unfinished_run(out, "mars-adamw", seed=5, steps=1000, rows=3)
    status(out, running={run: 20})
    write_json(out / "spent.json", {"seconds": 300.0})
    money = Watcher(out, Messages(), every=1.0).view().progress[3]
    assert money.value == f"{10 * (seconds + 0.2):,.0f} USD"
    assert "3,000 USD of the budget of 9,000 USD" in money.detail


def test_the_pictures_hold_runs_under_way_and_thin_long_ones(tmp_path: Path) -> None:
    out = pilot(tmp_path / "pilot", 5)
    run = unfinished_run(out, "mars-adamw", seed=5, steps=1000, rows=3)
    status(out, running={run: 20})
    comparison, tuning = (shown.curves for shown in seen(out).figures)
    assert [line.under_way for line in comparison.lines][-2:] == [False, True]
    assert {line.arm for line in tuning.lines} == {"adamw", "nadamw", "mars-adamw"}
    long = [(float(i), float(i % 2)) for i in range(1001)]
    assert thinned(long[:MOST_POINTS]) == tuple(long[:MOST_POINTS])
    assert len(thinned(long)) <= MOST_POINTS
    assert thinned(long)[0] == (2.5, 0.5)


def test_an_ended_pilot_is_final_when_its_report_is_there(tmp_path: Path) -> None:
    out = pilot(tmp_path / "pilot")
    (out / "report.html").write_text("of an earlier session")
    os.utime(out / "report.html", (1, 1))
    status(out, state="ended")
    now = [0.0]
    watcher = Watcher(out, Messages(), every=1.0, clock=lambda: now[0])
    assert (watcher.view().ended, watcher.view().reports) == (False, ())
    (out / "report.html").write_text("new")
    now[0] = 10.0
    assert (watcher.view().ended, watcher.view().reports) == (True, ("report.html",))


def test_nobody_looks_while_nobody_asks_or_too_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, now, looks = pilot(tmp_path / "pilot"), [0.0], list[float]()
    watcher = Watcher(out, Messages(), every=5.0, clock=lambda: now[0])
    last = watcher.view()

    def read() -> View:
        looks.append(now[0])
        now[0] += 1.0  # a look takes a second: the next one waits until it is a tenth
        return replace(last, problem="")

    monkeypatch.setattr(watcher, "_read", read)
    for second in range(60):
        now[0] = max(now[0], float(second))
        watcher.view()
    assert looks == [5.0, 16.0, 27.0, 38.0, 49.0]


def test_the_page_is_there_in_japanese(tmp_path: Path) -> None:
    say = Messages("ja")
    view = Watcher(pilot(tmp_path / "pilot", 5), say, every=1.0).view()
    page = render.page(view, say, 5.0)
    assert '<html lang="ja">' in page
    shown = re.sub(r"<code>.*?</code>|<head>.*?</head>|<[^>]+>", " ", page, flags=re.DOTALL)
    known = {"adamw", "nadamw", "mars", "optim", "JavaScript"}
    assert set(re.findall("[A-Za-z]{4,}", shown)) <= known


def test_every_text_of_the_page_is_there_in_japanese() -> None:
    english = {code for code in catalogue("en") if code.startswith("live.")}
    assert english <= set(catalogue("ja"))

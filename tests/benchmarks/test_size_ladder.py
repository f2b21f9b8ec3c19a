"""The ladder of sizes: its order, its tables, and the forecast before the largest size."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks import size_ladder
from benchmarks.output import UserError
from benchmarks.size_ladder import Design, Job, Paths, Shape, Tables, due, rate_at, row_of
from benchmarks.study_runs import append, check_data, read
from mars_optim.experiment.plan.plan_file import load_plan
from mars_optim.optim.transfer import TOKENS
from tests.support.paths import ROOT

SIZES = tuple(Shape(width, 2, 24 * width**2 + 320 * width) for width in (16, 32, 64, 112))
DESIGN = Design(("adamw", "muon"), SIZES, 512)
LAST = len(SIZES) - 1


def loss_of(job: Job) -> float:
    """A valley in the log rate whose place goes with the tokens, under a law of size and length."""
    n, tokens = SIZES[job.size].parameters, 512 * DESIGN.steps(job.size, job.length)
    place = math.log2(0.03) + TOKENS * math.log2(tokens / 4e4) + (job.arm == "muon")
    valley = 0.02 * (math.log2(job.rate) - place) ** 2
    law = 1.0 + 6.0 * n**-0.2 + 12.0 * (tokens * (1.3 if job.arm == "muon" else 1.0)) ** -0.25
    return law + valley + 0.01 * job.seed


def with_runs(tables: Tables, jobs: list[Job]) -> Tables:
    rows = [(job, row_of(DESIGN, job, loss_of(job), "text")) for job in jobs]
    trials = tuple(row for job, row in rows if job.trial)
    return Tables(tables.trials + trials, tables.cells + tuple(r for j, r in rows if not j.trial))


def whole(foretold: bool, tables: Tables | None = None) -> tuple[list[Job], Tables]:
    made: list[Job] = []
    found = tables or Tables()
    while jobs := due(DESIGN, found, foretold=foretold):
        found = with_runs(found, jobs)
        made += jobs
    return made, found


def test_small_sizes_and_short_runs_come_first() -> None:
    made, _ = whole(True)
    blocks = list(dict.fromkeys((job.size, job.length) for job in made))
    assert blocks == [(0, 3), (0, 12), (0, 48), (1, 3), (1, 12), (2, 3), (2, 12), (3, 3), (3, 12)]
    assert len(set(made)) == len(made)
    largest = [(job.seed, job.length) for job in made if job.size == LAST]
    assert largest == [(seed, length) for seed in (1, 2) for length in (3, 3, 12, 12)]


def test_the_largest_size_waits_for_its_forecast() -> None:
    made, before = whole(False)
    assert {job.size for job in made} == set(range(LAST))
    made, _ = whole(True, before)
    assert {job.size for job in made} == {LAST}


def test_a_study_stopped_after_any_run_goes_on_to_the_same_runs() -> None:
    every, _ = whole(True)
    for count in range(0, len(every), 7):
        rest, _ = whole(True, with_runs(Tables(), every[:count]))
        assert sorted(rest) == sorted(every[count:])


def test_rates_are_tuned_at_small_sizes_and_carried_by_tokens() -> None:
    made, tables = whole(True)
    assert {job.size for job in made if job.trial} == {0, 1}
    tuned = rate_at(DESIGN, tables, 1, 12, "muon")
    tokens = DESIGN.steps(LAST, 12) / DESIGN.steps(1, 12)
    assert rate_at(DESIGN, tables, LAST, 12, "muon") == pytest.approx(
        tuned * tokens**TOKENS, rel=1e-3
    )
    assert tuned == pytest.approx(2 * 0.03 * (512 * DESIGN.steps(1, 12) / 4e4) ** TOKENS, rel=1e-3)


def test_tables_come_back_to_the_bit(tmp_path: Path) -> None:
    job = Job(1, 3.0, "adamw", 2, 0.1 + 0.2, False)
    rows = [row_of(DESIGN, job, loss, "text") for loss in (1 / 3, math.inf)]
    for row in rows:
        append(tmp_path / "new" / "cells.csv", row)
    assert read(tmp_path / "new" / "cells.csv") == rows
    assert read(tmp_path / "none.csv") == []
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cells.csv"]


def test_a_table_that_cannot_be_right_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "cells.csv"
    append(table, row_of(DESIGN, Job(0, 3.0, "adamw", 1, 0.01, False), 2.0, "text"))
    with pytest.raises(UserError, match="made on the text text, and this Python's is other"):
        check_data(table, read(table), "other")
    table.write_text(table.read_text() + "adamw,16,2\n")
    with pytest.raises(UserError, match="line 3 is no run"):
        read(table)
    table.write_text("arm,loss\n")
    with pytest.raises(UserError, match="its first line must be arm,width"):
        read(table)


def test_the_forecast_is_of_the_largest_size_at_its_lengths(tmp_path: Path) -> None:
    paths = Paths.below(tmp_path)
    for row in whole(False)[1].cells:
        append(paths.cells, row)
    size_ladder.write_forecast(DESIGN, "adamw", paths)
    told = json.loads(paths.forecast.read_text())
    assert [answer["target"]["parameters"] for answer in told] == [SIZES[LAST].parameters] * 2
    assert [round(a["target"]["tokens"] / SIZES[LAST].parameters) for a in told] == [3, 12]
    for answer in told:
        ratio = answer["arms"]["muon"]["token_ratio"]
        assert ratio["low95"] < 1.3 < ratio["high95"]


def test_the_plan_has_a_factor_of_thirty_in_parameters() -> None:
    plan = load_plan(ROOT / "docs/studies/next/sizes.toml")
    assert [size.task.width for size in plan.sizes()] == [16, 32, 64, 112]  # type: ignore[union-attr]
    assert len(DESIGN.reach) == len(DESIGN.lengths)
    assert len(DESIGN.seeds) == len(plan.sizes())


TINY = """
arms = ["adamw", "muon"]
[task]
width = 8
heads = 1
base_width = 8
[training]
evaluations = 1
eval_tokens = 512
[comparison]
baseline = "adamw"
candidate = "muon"
[scale.a]
width = 12
[scale.b]
width = 16
[scale.c]
width = 20
"""


@pytest.mark.slow
def test_real_runs_go_on_from_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, tables = tmp_path / "tiny.toml", tmp_path / "tables"
    plan.write_text(TINY)
    small = ((2.0, 4.0), (1, 1), (1, 1, 1, 1), 1)
    monkeypatch.setattr(Design.__new__, "__defaults__", small)
    command = [str(plan), "--tables", str(tables)]
    size_ladder.main([*command, "--out", str(tmp_path / "first")])
    said = capsys.readouterr().out
    assert "token ratio" in said
    rows = read(tables / "cells.csv")
    assert [(row.arm, row.width, row.seed) for row in rows] == [("adamw", 8, 1), ("muon", 8, 1)] * 2
    kept = (tables / "cells.csv").read_text()
    (tables / "cells.csv").write_text("\n".join(kept.splitlines()[:3]) + "\n")
    size_ladder.main([*command, "--out", str(tmp_path / "second")])
    assert (tables / "cells.csv").read_text() == kept
    assert len(list((tmp_path / "second" / "runs").iterdir())) == 2

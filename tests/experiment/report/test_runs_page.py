"""The page of a folder of runs: what it says, in both languages, and its files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mars_optim.cli import main
from mars_optim.experiment.analysis import analyse, survey
from mars_optim.experiment.plan.plan_file import load_plan
from mars_optim.experiment.report import Messages, runs_summary, write_report, write_runs_report
from mars_optim.experiment.report.document import Table
from mars_optim.experiment.report.runs_page import build_runs_page, comparison_table, lead
from mars_optim.experiment.report.sections.evidence import arms_table
from mars_optim.files import write_text
from tests.support.written_pilot import write_pilot
from tests.support.written_runs import write_run, write_sweep


def cells(table: Table, row: int) -> list[str]:
    return [cell.text for cell in table.rows[row]]


def test_the_table_has_ours_beside_what_was_published(tmp_path: Path):
    write_sweep(tmp_path)
    (found,) = survey(tmp_path).experiments
    table = comparison_table(found, Messages())
    assert table.head == (
        *("Arm", "Learning rate", "Mean loss", "Published", "Recorded", "Difference, paired"),
        *("Time", "State per parameter"),
    )
    words, difference = Messages(), found.arms[1].loss_difference
    assert difference is not None
    assert cells(table, 0) == ["adamw", "0.001", "3.0000", "2.885", "2.9", "—", "2 s", "8.0 B"]
    assert cells(table, 1) == [
        *("mars-adamw", "0.006", "2.8000", "2.849, 95.29 %", "—", words.signed(difference.mean)),
        *("2 s", "12.0 B"),
    ]
    assert table.rows[1][5].detail == words.between(difference, words.signed)
    assert table.rows[1][1].detail == "of 4 tried"


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    ("runs", "code"),
    [
        ([("adamw", 1, 3.0)], "runs.lead.one"),
        ([("adamw", 1, 3.0), ("mars-adamw", 1, 3.1)], "runs.lead.baseline"),
        ([("adamw", 1, 3.0), ("mars-adamw", 2, 2.9)], "runs.lead.unpaired"),
        ([("adamw", 1, 3.0), ("mars-adamw", 1, 2.9)], "runs.lead.pair"),
        (
            [(a, s, x + 0.1 * s) for a, x in (("adamw", 3.0), ("mars-adamw", 2.9)) for s in (1, 2)],
            "runs.lead.lower",
        ),
        (
            [
                *(("adamw", 1, 3.0), ("mars-adamw", 1, 2.9)),
                *(("adamw", 2, 3.0), ("mars-adamw", 2, 2.99)),
            ],
            "runs.lead.open",
        ),
        ([("adamw", 1, None), ("mars-adamw", 1, None)], "runs.lead.diverged"),
    ],
)
def test_the_lead_says_no_more_than_the_runs_do(
    runs: list[tuple[str, int, float | None]], code: str, tmp_path: Path
):
    for arm, seed, loss in runs:
        write_run(tmp_path, arm, 1e-3, seed, loss)
    found = survey(tmp_path)
    assert lead(found.experiments[0])[0] == code
    for lang in ("en", "ja"):
        page = build_runs_page(found, Messages(lang), tmp_path)  # type: ignore[arg-type]
        assert page.lead
        assert page.lead in runs_summary(found, Messages(lang))  # type: ignore[arg-type]


def test_a_single_arm_is_compared_with_nothing(tmp_path: Path):
    write_run(tmp_path, "mars-adamw", 1e-3, 1, 3.0)
    titles = [tile.label for tile in build_runs_page(survey(tmp_path), Messages(), tmp_path).tiles]
    assert not [title for title in titles if title.startswith("Against")]
    write_run(tmp_path, "adamw", 1e-3, 1, 3.1)
    titles = [tile.label for tile in build_runs_page(survey(tmp_path), Messages(), tmp_path).tiles]
    assert [title for title in titles if title.startswith("Against")]


def test_the_page_warns_of_edges_single_rates_and_departures(tmp_path: Path):
    write_run(tmp_path, "adamw", 1e-3, 1, 3.0)
    write_run(tmp_path, "mars-adamw", 3e-3, 1, 2.9)
    write_run(tmp_path, "mars-adamw", 6e-3, 1, 2.8)
    stopped = write_run(tmp_path, "nadamw", 6e-3, 1, 2.8, finished=False)
    text = "\n".join(build_runs_page(survey(tmp_path), Messages(), tmp_path).reasons)
    assert "at the edge of those tried: mars-adamw" in text
    assert "One learning rate was tried, so it is not tuned: adamw." in text
    assert (
        "chosen by runs that are compared here, which flatters the mean loss a little: mars" in text
    )
    assert stopped in text
    assert "depart" not in text


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_the_command_writes_a_page_its_figures_and_its_numbers(
    lang: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_sweep(tmp_path)
    assert main(["report", str(tmp_path), "--lang", lang]) == 0
    suffix = "" if lang == "en" else ".ja"
    printed = capsys.readouterr().out
    assert f"report{suffix}.html" in printed
    assert "2.885" in printed
    html = (tmp_path / f"report{suffix}.html").read_text(encoding="utf-8")
    for picture in ("curves", "rates"):
        assert (tmp_path / "figures" / f"{picture}{suffix}.svg").exists()
        assert f'<figure class="{picture}" id="figure-{picture}">' in html
    assert "<script" not in html
    data = json.loads((tmp_path / "report.json").read_text())
    (found,) = data["experiments"]
    mars = found["arms"]["mars-adamw"]
    assert mars["loss_difference"]["mean"] == pytest.approx(-0.2, abs=0.01)
    assert mars["published"]["loss"] == 2.849
    assert mars["trials"][-1] == {"lr": 1.2e-2, "loss": None, "seed": 0}


def test_the_japanese_page_says_everything_in_japanese(tmp_path: Path):
    write_sweep(tmp_path)
    write_run(tmp_path, "mars-adamw", 1e-1, 9, None)
    html = write_runs_report(survey(tmp_path), tmp_path, Messages("ja"))[0].read_text("utf-8")
    visible = re.sub(r"<style.*?</style>|<code>.*?</code>|<[^>]+>", " ", html, flags=re.S)
    # names, and what the recipe itself says
    known = (
        "adamw|mars|optim|nat|small|sources|Table|paper|seed|laptop|train|recipe|toml|stdlib|"
        "Linux|torch|GPT|gpt|its|own"
    )
    english = set(re.findall(rf"\b(?!(?:{known})\b)[A-Za-z]{{4,}}\b", visible))
    assert english == set()


@pytest.mark.slow
def test_experiments_have_separate_figures_and_colours(tmp_path: Path):
    write_sweep(tmp_path)
    write_run(tmp_path, "mars-adamw", 3e-3, 1, 2.5, steps=200)
    found = survey(tmp_path)
    page = build_runs_page(found, Messages(), tmp_path)
    assert [s.key for s in page.sections] == ["evidence", "evidence-2", "repeat"]
    html = write_runs_report(found, tmp_path)[0].read_text(encoding="utf-8")
    first, second = html.split('id="evidence-2"')
    blue, grey = "fill: #0072b2", "fill: #4d4d4d"
    dots = [re.findall(r'class="dot".*?style="([^"]+)"', part) for part in (first, second)]
    assert set(dots[0]) == {blue, grey}
    assert set(dots[1]) == {grey}  # alone, it is its own baseline
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_folder_without_pilot_or_runs_says_what_makes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    error = capsys.readouterr().err
    assert "mars pilot --out" in error
    assert "mars train RECIPE.toml --out" in error


def with_scores(out: Path, scores: dict[str, Any]) -> None:
    """Add scores to every evaluation of a folder's runs."""
    for path in out.glob("runs/*/rows.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [row | scores if "valid_loss" in row else row for row in rows]
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def test_report_shows_accuracy_and_bits_per_byte_if_recorded(tmp_path: Path):
    out = tmp_path / "pilot"
    write_pilot(out, speedup=1.3)
    assert "Accuracy" not in arms_table(analyse(out), Messages()).head
    with_scores(out, {"accuracy": 0.9481, "bits_per_byte": 1.5, "own": 3.0})
    analysis = analyse(out)
    table = arms_table(analysis, Messages())
    assert table.head[-3:] == ("Accuracy", "Bits per byte", "own")
    assert cells(table, 0)[-3:] == ["94.81 %", "1.5000", "3.0000"]
    verdict = json.loads(write_report(analysis, out)[2].read_text())
    assert verdict["arms"]["adamw"]["scores"]["accuracy"] == pytest.approx(0.9481)
    assert load_plan(out / "plan.toml").recipe.title == ""


def test_pilot_table_on_a_recipe_has_the_published_numbers(tmp_path: Path):
    out = tmp_path / "pilot"
    write_pilot(out, speedup=1.3, published__adamw="{loss = 2.885, source = 'Table 1'}")
    table = arms_table(analyse(out), Messages())
    assert table.head[-1] == "Published"
    assert [row[-1].text for row in table.rows] == ["2.885", "—", "—"]

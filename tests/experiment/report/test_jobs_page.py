"""``mars report A B``: one page of several pilots, and a line for what cannot be one."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from mars_optim.cli import main
from mars_optim.experiment.analysis.jobs import jobs_of, names_of
from mars_optim.experiment.report import Messages, jobs_summary, write_jobs_report
from mars_optim.experiment.report.jobs_page import jobs_table
from mars_optim.experiment.report.messages import catalogue
from tests.support.written_pilot import write_pilot


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pilots; the second has one more arm."""
    folder = tmp_path_factory.mktemp("team")
    write_pilot(folder / "A", speedup=1.3)
    write_pilot(folder / "B", speedup=0.8, arms="['adamw', 'nadamw', 'mars-adamw', 'mars-m']")
    write_pilot(folder / "C", speedup=1.06, spread=0.2)
    return folder


def report(*arguments: object) -> int:
    return main(["report", *map(str, arguments)])


def line_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Line of a refusal."""
    assert report(*arguments) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    return said


@pytest.fixture(scope="module")
def written(team: Path) -> Path:
    """Where the page of the three is."""
    out = team / "page"
    assert report(team / "A", team / "B", team / "C", "--to", out) == 0
    return out


def test_each_job_has_its_verdict_and_its_arms_savings(team: Path):
    found = jobs_of([team / "A", team / "B"])
    table = jobs_table(found, Messages())
    assert table.head == ("Job", "Verdict", "mars-adamw", "nadamw", "adamw", "mars-m")
    rows = [[(cell.text, cell.detail) for cell in row] for row in table.rows]
    assert rows[0][:2] == [("A", ""), ("Go", "mars-adamw")]
    assert rows[0][2][0] == "23 %"
    assert rows[0][4:] == [("—", "baseline"), ("not run", "")]
    assert rows[1][1][0] == "No-go"


def test_an_arm_that_a_job_did_not_plan_is_named(written: Path):
    text = (written / "report.md").read_text()
    assert "mars-m was not planned in A, C: its profile is over 1 of 3 jobs" in text
    assert "mars-m (1 of 3 jobs)" in (written / "figures" / "profiles.svg").read_text()
    assert "figures/profiles.svg" in text
    assert "<svg" in (written / "report.html").read_text()


def test_the_numbers_are_there_for_programs(written: Path):
    data: dict[str, Any] = json.loads((written / "jobs.json").read_text())
    assert [data["jobs"][name]["verdict"] for name in "ABC"] == ["go", "no-go", "not-enough-runs"]
    arms = data["jobs"]["A"]["arms"]
    assert arms["mars-adamw"]["tau"]["mean"] == 1.0
    assert arms["adamw"]["tau"]["low"] < arms["adamw"]["tau"]["mean"] == pytest.approx(1.3, 0.02)
    assert "mars-m" not in arms
    last = data["profiles"]["mars-m"][-1]
    assert (last["jobs"], last["share"], last["high"]) == (1, 1.0, 1.0)
    for rows in data["profiles"].values():
        assert all(row["low"] <= row["share"] <= row["high"] for row in rows)


def test_page_in_japanese_lacks_no_text(
    team: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    said, original = set(), Messages.__call__

    def note(self: Messages, code: str, /, **values: object) -> str:
        said.add(code)
        return original(self, code, **values)

    found, say = jobs_of([team / "A", team / "B", team / "C"]), Messages("ja")
    monkeypatch.setattr(Messages, "__call__", note)
    write_jobs_report(found, tmp_path, say)
    jobs_summary(found, say)
    codes = {code for code in said if code.startswith("jobs.")}
    assert len(codes) > 20
    assert said <= set(catalogue("ja"))


def test_page_in_japanese_has_no_english_word(team: Path, tmp_path: Path):
    found, say = jobs_of([team / "A", team / "B", team / "C"]), Messages("ja")
    html, markdown, data = write_jobs_report(found, tmp_path, say)
    assert (html.name, markdown.name, data.name) == ("report.ja.html", "report.ja.md", "jobs.json")
    drawn = (tmp_path / "figures" / "profiles.ja.svg").read_text(encoding="utf-8")
    for text in (html.read_text(encoding="utf-8"), drawn, jobs_summary(found, say)):
        code = r"<style.*?</style>|<metadata.*?</metadata>|<code>.*?</code>|`[^`]*`|<[^>]+>|&#?\w+;"
        visible = re.sub(code, " ", text.replace(str(team), ""), flags=re.DOTALL)
        names = "adamw|nadamw|mars|optim|CSV"
        assert set(re.findall(rf"\b(?!(?:{names})\b)[A-Za-z]{{2,}}\b", visible)) == set()
        assert ": " not in visible


def test_one_folder_has_the_report_of_a_pilot(team: Path, tmp_path: Path):
    shutil.copytree(team / "A", tmp_path / "A")
    assert report(tmp_path / "A") == 0
    assert (tmp_path / "A" / "verdict.json").exists()
    assert not (tmp_path / "A" / "jobs.json").exists()


def test_an_unfinished_pilot_is_left_out_and_said_to_be(team: Path, tmp_path: Path):
    shutil.copytree(team / "A", tmp_path / "half")
    shutil.rmtree(next((tmp_path / "half" / "runs").glob("mars-adamw-*-seed3-*")))
    found = jobs_of([team / "A", team / "B", tmp_path / "half"])
    assert [job.name for job in found.jobs] == ["A", "B"]
    (left,) = found.left_out
    said = Messages().finding(left).translate({0xE000: "`", 0xE001: "`"})
    assert (
        said
        == "Left out: half: 1 of its runs is missing; run the same `mars pilot` again to make them"
    )
    assert "未完了の実行が 1 回" in Messages("ja").finding(left)


def test_one_pilot_that_counts_is_not_enough(
    team: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "new" / "runs").mkdir(parents=True)
    shutil.copy(team / "A" / "plan.toml", tmp_path / "new")
    said = line_of(capsys, team / "A", tmp_path / "new", "--to", tmp_path / "page")
    assert "1 of 2 pilots can be counted, and two are needed" in said
    assert "holds no finished run yet" in said
    assert not (tmp_path / "page").exists()


def test_a_plan_that_cannot_be_read_is_left_out_by_name(team: Path, tmp_path: Path):
    shutil.copytree(team / "A", tmp_path / "later")
    plan = tmp_path / "later" / "plan.toml"
    plan.write_text(plan.read_text().replace("[decision]", "[decision]\nfrom_the_future = 1"))
    (left,) = jobs_of([team / "A", team / "B", tmp_path / "later"]).left_out
    assert left.values["job"] == "later"
    assert "from_the_future" in str(left.values["why"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["A", "A"], "is the same folder as"),
        (["A", "B/../A"], "is the same folder as"),
        (["A", "absent"], "absent holds no pilot (no plan.toml)"),
        (["A", "B", "--from", "x.csv"], "--from works with one folder, and 2 are given"),
        (["A", "--to", "page"], "--to works only with several pilots"),
        (["A", "B", "--to", "A"], "whose own report is there"),
    ],
)
def test_folders_that_cannot_be_one_page_give_one_line(
    arguments: list[str],
    words: str,
    team: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(team)
    assert words in line_of(capsys, *arguments)
    assert not (team / "mars-jobs").exists()


def notes_of(*folders: Path) -> list[str]:
    return [Messages().finding(f) for f in jobs_of(folders).notes]


def test_other_baselines_rules_and_settings_are_said(team: Path, tmp_path: Path):
    write_pilot(
        tmp_path / "D",
        speedup=1.2,
        comparison__candidate="'nadamw'",
        decision__min_saving="0.1",
        **{"arm__mars-adamw__gamma": "0.05"},
    )
    notes = notes_of(team / "A", tmp_path / "D")
    assert (
        "The verdicts follow different rules (A: min_saving = 0.05, D: min_saving = 0.1)." in notes
    )
    assert (
        "mars-adamw has other settings in D than in A (gamma): the profile takes them as one arm."
        in notes
    )


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pilots whose control follows a go: one that is a go, and one that is none."""
    folder = tmp_path_factory.mktemp("waiting")
    write_pilot(folder / "go", speedup=1.3, comparison__others="after-go")
    write_pilot(folder / "no", speedup=0.8, comparison__others="after-go")
    for run in (folder / "no" / "runs").glob("nadamw-*"):
        shutil.rmtree(run)
    return folder


def test_an_arm_that_only_goes_have_run_has_no_profile(waiting: Path):
    assert report(waiting / "go", waiting / "no", "--to", waiting / "page") == 0
    text = (waiting / "page" / "report.md").read_text()
    assert "nadamw was not run in no, where the verdict is not" in text
    data = json.loads((waiting / "page" / "jobs.json").read_text())
    assert set(data["profiles"]) == {"adamw", "mars-adamw"}
    assert data["jobs"]["no"]["withheld"] == ["nadamw"]
    assert data["jobs"]["go"]["arms"]["nadamw"]["tau"] is None
    row = jobs_table(jobs_of([waiting / "no", waiting / "go"]), Messages()).rows[0]
    assert (row[-1].text, row[-1].detail) == ("not run", "waits for a go")


def test_what_was_held_back_elsewhere_is_no_jobs_best(waiting: Path, tmp_path: Path):
    write_pilot(tmp_path / "quick", speedup=1.3, comparison__others="after-go")
    alone = jobs_of([waiting / "go", tmp_path / "quick"])
    mixed = jobs_of([waiting / "go", waiting / "no"])
    assert "nadamw" in {p.arm for p in alone.profiles}
    (candidate,) = (p for p in mixed.profiles if p.arm == "mars-adamw")
    known = candidate.at("go")
    assert known is not None
    assert len(known.gaps) == 1  # to the baseline alone


def test_an_arm_that_is_due_after_the_go_is_said_to_be(waiting: Path, tmp_path: Path):
    shutil.copytree(waiting / "go", tmp_path / "begun")
    for run in (tmp_path / "begun" / "runs").glob("nadamw-*"):
        shutil.rmtree(run)
    (note,) = (n for n in notes_of(waiting / "go", tmp_path / "begun") if n.startswith("nadamw"))
    assert "has no finished run in begun, where it follows the go" in note


def test_folders_of_one_name_are_told_apart_by_their_paths():
    assert names_of([Path("x/pilot"), Path("y/pilot")]) == ("x/pilot", "y/pilot")
    assert names_of([Path("x/one"), Path("y/two/")]) == ("one", "two")

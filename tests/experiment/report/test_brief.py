"""``mars report --pdf``: one A4 page for a meeting, printed by a browser of this machine."""

from __future__ import annotations

import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from mars_optim.cli import main
from mars_optim.errors import UserError
from mars_optim.experiment.analysis import Analysis, analyse
from mars_optim.experiment.report import LANGS, Lang, Messages, write_brief
from mars_optim.experiment.report.browser import NAMES, find_browser, pages_of, print_to_pdf
from mars_optim.experiment.report.page import build_page
from mars_optim.experiment.report.write import render_brief
from tests.support.pages import CHROMIUM, lacking
from tests.support.written_pilot import EXTRAS, write_pilot

A4 = (595, 842)  # points


@pytest.fixture(scope="module")
def win(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("brief") / "pilot"
    write_pilot(out, speedup=1.3, **EXTRAS)
    return out


LONG = "an-arm-has-at-most-forty-letters-as-this"


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pilot whose candidate has the longest name that a plan allows."""
    out = tmp_path_factory.mktemp("brief") / "pilot"
    settings = {f"arm__{LONG}__optimizer": "'mars'", "comparison__candidate": f"'{LONG}'"}
    arms = {
        "arms": f"['adamw', 'nadamw', '{LONG}']",
        "cost__currency": "'currency-of-many-letters'",
    }
    write_pilot(out, speedup=1.06, spread=0.2, cost__price_per_hour="12345", **settings, **arms)
    return out


def wordy(analysis: Analysis) -> Analysis:
    """The analysis with a headline that fills a page by itself."""
    verdict = analysis.verdict
    return replace(analysis, verdict=replace(verdict, findings=verdict.findings * 30))


@pytest.mark.slow
@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("pilot", ["win", "long", "wordy"])
def test_the_pdf_is_one_a4_page(win: Path, long: Path, lang: Lang, pilot: str) -> None:
    if CHROMIUM is None:
        lacking("chromium")
    out = win if pilot == "win" else long
    analysis = wordy(analyse(out)) if pilot == "wordy" else analyse(out)
    path = write_brief(analysis, out, Messages(lang))
    pdf = path.read_bytes()
    assert path.name == f"report{Messages(lang).suffix}.pdf"
    assert pdf.startswith(b"%PDF-")
    assert pages_of(pdf) == 1
    assert set(re.findall(rb"/Count (\d+)", pdf)) == {b"1"}  # as the page tree says, too
    box = re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    assert box
    assert tuple(round(float(side)) for side in box.groups()) == A4
    assert [p.name for p in out.glob("*.tmp")] == []


@pytest.mark.slow
def test_pages_are_counted_as_the_browser_breaks_them() -> None:
    if CHROMIUM is None:
        lacking("chromium")
    page = "<p>1</p>" + "<p style='break-before: page'>2</p>" * 2
    assert pages_of(print_to_pdf(page, CHROMIUM)) == 3


@pytest.mark.slow_but_one
@pytest.mark.parametrize("lang", LANGS)
def test_the_page_has_headline_action_numbers_and_caveats(win: Path, lang: Lang) -> None:
    say = Messages(lang).about(analyse(win).plan.decision)
    page = build_page(analyse(win), say, win)
    source = re.sub("</?code>", "", render_brief(page, say))
    parts = [page.title, page.lead, page.action, say("limit.size"), say("run.stdlib")]
    parts += [text for tile in page.tiles for text in (tile.label, tile.value)]
    for part in parts:
        assert part.replace("'", "&#39;") in source
    assert source.count("<svg role=") == 1
    assert source.count("<li>") == 3
    assert "<button" not in source


@pytest.mark.slow
def test_without_a_browser_one_line_names_what_is_looked_for(
    win: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROME", raising=False)
    monkeypatch.setattr("mars_optim.experiment.report.browser.MAC", ())
    assert main(["report", str(win), "--pdf"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    for word in (*NAMES, "CHROME", "report.html"):
        assert word in error


def test_chrome_names_the_browser_and_must_be_a_program(tmp_path: Path) -> None:
    program = tmp_path / "my chrome"
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(UserError, match=r"CHROME=.*cannot be started"):
        find_browser({"PATH": "", "CHROME": str(program)})
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert find_browser({"PATH": "", "CHROME": str(program)}) == str(program)


def test_well_known_names_are_found_in_the_path(tmp_path: Path) -> None:
    for name in ("msedge", "google-chrome"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert Path(find_browser({"PATH": str(tmp_path)})).name == "google-chrome"


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    ("script", "word"),
    [("echo broken >&2; exit 3", "status 3: broken"), ("exit 0", "wrote no PDF")],
)
def test_a_browser_that_fails_leaves_the_old_pdf(
    win: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, word: str
) -> None:
    program = tmp_path / "chrome"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("CHROME", str(program))
    (win / "report.pdf").write_bytes(b"old")
    with pytest.raises(UserError, match=word) as error:
        write_brief(analyse(win), win)
    assert "\n" not in str(error.value)
    assert (win / "report.pdf").read_bytes() == b"old"


def test_a_browser_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "chrome"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr("mars_optim.experiment.report.browser.LIMIT", 0.3)
    with pytest.raises(UserError, match="took longer than"):
        print_to_pdf("<p>", str(program))

"""The page as it is seen: phone and laptop, light and dark, English and Japanese, by keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mars_optim.experiment.analysis import analyse, survey
from mars_optim.experiment.report import Lang, Messages, write_report, write_runs_report
from tests.support.pages import CHROMIUM, fonts_for, lacking, look_at
from tests.support.rollout_files import write_canary, write_guard_log
from tests.support.written_pilot import EXTRAS, with_control_named, write_pilot
from tests.support.written_runs import write_run, write_sweep

pytestmark = pytest.mark.slow


PILOTS: dict[str, dict[str, Any]] = {
    "win": dict(speedup=1.3, **EXTRAS),
    "loss": dict(speedup=0.8),
    "staged": dict(speedup=1.3),
    "open": dict(speedup=1.06, spread=0.2, cost__price_per_hour="1234.5"),
}
LONG = "a-name-as-long-as-an-arm-of-a-pilot-has"
PAGES: tuple[tuple[str, Lang], ...] = (
    *(("win", "en"), ("win", "ja"), ("loss", "en"), ("open", "ja")),
    *(("runs", "en"), ("runs", "ja"), ("staged", "en")),
)
SIZES = {"small": (360, 740), "phone": (390, 844), "tablet": (768, 1024), "laptop": (1280, 800)}


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The browser's findings, by "verdict language size scheme"."""
    if CHROMIUM is None:
        lacking("chromium")
    folder = tmp_path_factory.mktemp("pages")
    pages: dict[str, tuple[Path, int, int]] = {}
    for name, lang in PAGES:
        path = write_page_of(name, folder / name, Messages(lang))
        for size, (width, height) in SIZES.items():
            pages[f"{name} {lang} {size}"] = (path, width, height)
    found = {}
    for scheme in ("light", "dark"):
        seen = look_at(pages, folder / scheme, dark=scheme == "dark")
        found |= {f"{view} {scheme}": what for view, what in seen.items()}
    assert len(found) == 56
    return found


def write_page_of(name: str, out: Path, words: Messages) -> Path:
    """A pilot's page, or that of a folder of runs with two experiments in it."""
    if name == "runs":
        write_sweep(out)
        write_run(out, "nadamw", 1e-3, 1, 2.7, gamma=0.123)
        write_run(out, "nadamw", 1e-3, 1, 2.6)
        write_run(out, "nadamw", 1e-3, 1, 2.5, steps=200, scores={"accuracy": 0.9481})
        return write_runs_report(survey(out), out, words)[0]
    if not out.exists():
        write_pilot(out, **PILOTS[name])
    if name == "staged":
        write_canary(out / "canary.json", spiked=True)
        write_guard_log(out / "guard.jsonl", back=True)
    analysis = analyse(out)
    if name == "loss":
        analysis = with_control_named(analysis, LONG)
    return write_report(analysis, out, words)[0]


def test_nothing_sticks_out_of_the_page(views: dict[str, dict[str, Any]]) -> None:
    assert {view: v["overflow"] for view, v in views.items() if v["overflow"] > 0} == {}
    assert {view: v["cut"] for view, v in views.items() if v["cut"]} == {}
    assert {view: v["svgs"] for view, v in views.items() if v["svgs"]} == {}


def test_first_screen_has_verdict_tokens_hours_money_certainty(
    views: dict[str, dict[str, Any]],
) -> None:
    for view, seen in views.items():
        height = SIZES[view.split()[2]][1]
        assert seen["title"] < seen["lead"] < height, view
        assert len(seen["tiles"]) == 4
        assert max(seen["tiles"]) <= height, view


def test_every_text_can_be_read_against_what_is_behind_it(views: dict[str, dict[str, Any]]) -> None:
    poor = {
        (view, where): what
        for view, seen in views.items()
        for where, what in seen["contrasts"].items()
        if what[0] < 4.5
    }
    assert poor == {}
    assert {v["dark"] for view, v in views.items() if view.endswith("dark")} == {True}
    assert {v["dark"] for view, v in views.items() if view.endswith("light")} == {False}


def test_keyboard_reaches_everything_in_order_and_shows_focus(
    views: dict[str, dict[str, Any]],
) -> None:
    for view, seen in views.items():
        assert seen["focusable"][0] == "A.skip", view
        assert seen["skipShown"], view
        assert seen["skipTarget"], view
        assert set(seen["tabindexes"]) == {0}, view  # the order of the page
        assert all(seen["outlines"]), view
        assert seen["unnamed"] == 0, view
        figures = 3 if view.startswith("runs") else 6
        assert sum(name.startswith("SUMMARY") for name in seen["focusable"]) >= figures


def test_japanese_has_its_glyphs_in_page_and_figures(views: dict[str, dict[str, Any]]) -> None:
    if not fonts_for("ja"):
        lacking("Japanese font")
    for view, seen in views.items():
        assert seen["glyphs"], view
        assert all(seen["glyphs"]), view


def test_a_term_is_explained_by_focus_and_by_touch(views: dict[str, dict[str, Any]]) -> None:
    for view, seen in views.items():
        tips, width = seen["tips"], SIZES[view.split()[2]][0]
        assert tips["before"] == tips["blurred"] == [], view
        for way in ("focused", "clicked"):
            assert [tip[0] for tip in tips[way]] == [tips["of"]], (view, way)
            _, left, right, top = tips[way][0]
            assert left >= 0, (view, way)
            assert right <= width, (view, way)
            assert top >= 0, (view, way)

"""The live page in a real browser: connection, token, no script, phone and dark."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.browser import Browser
from tests.support.pages import LOOK
from tests.support.pretend_pilot import status, unfinished_run
from tests.support.served import Served, need_browser
from tests.support.written_pilot import write_pilot

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pilot of which seed 5 is still missing, and a run of it under way."""
    need_browser()
    out = tmp_path_factory.mktemp("served") / "pilot"
    write_pilot(out, speedup=1.3, cost__price_per_hour="2.5")
    for folder in (out / "runs").glob("*-seed5-*"):
        shutil.rmtree(folder)
    run = unfinished_run(out, "mars-adamw", seed=5, steps=1000, rows=3)
    status(out, running={run: 333}, planned_runs=39, seconds_left=200.0, share=0.6)
    return out


def test_a_lost_connection_is_told_and_taken_up_again(out: Path, tmp_path: Path) -> None:
    with Browser(tmp_path / "browser") as browser:
        with Served(out, "--every", "0.5") as served:
            browser.open(served.url)
            browser.until("document.body.innerText.includes('This page updates by itself')")
            assert served.end() == (130, "")
        browser.until("/Connection lost, last seen \\d+:\\d\\d/.test(document.body.innerText)")
        assert "33 %" in browser.text  # what was seen stays
        with Served(out, "--every", "0.5", "--port", served.port):
            browser.until("document.body.innerText.includes('This page updates by itself')")


def test_a_vanished_folder_is_one_line_and_what_was_seen_stays(out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "pilot"
    shutil.copytree(out, copy)
    with Browser(tmp_path / "browser") as browser, Served(copy, "--every", "0.5") as served:
        browser.open(served.url)
        browser.until("document.body.innerText.includes('33 %')")
        browser.watch_shifts()
        title = browser.ask("document.querySelector('#verdict .title').textContent")
        copy.rename(tmp_path / "elsewhere")
        browser.until("document.body.innerText.includes('holds no pilot')")
        assert "33 %" in browser.text
        note = browser.ask("document.querySelector('#notes').getBoundingClientRect().bottom")
        assert note == browser.ask("window.innerHeight")  # seen at once, wherever one reads
        (tmp_path / "elsewhere").rename(copy)
        browser.until("!document.body.innerText.includes('holds no pilot')")
        assert browser.shifts(title) == []
        assert served.end() == (130, "")


def test_the_token_opens_the_page_and_leaves_the_address(out: Path, tmp_path: Path) -> None:
    with Browser(tmp_path / "browser") as browser, Served(out, "--token") as served:
        bare = served.url.partition("?")[0]
        browser.open(bare.replace("127.0.0.1", "localhost"))  # another site, to a browser
        assert "This page needs its token" in browser.text
        link = f"Object.assign(document.createElement('a'), {{href: {served.url!r}}})"
        browser.follow(link)
        browser.until("document.querySelector('#verdict') && document.title.includes('of 39')")
        assert browser.ask("location.href") == bare
        assert browser.ask("document.cookie") == ""
        history = browser.call("Page.getNavigationHistory")["entries"]
        assert [e["url"] for e in history if "token" in e["url"]] == []
        browser.until("[...document.images].every(i => i.complete && i.naturalWidth)")


def test_without_script_the_page_is_whole_and_loads_again(out: Path, tmp_path: Path) -> None:
    with Browser(tmp_path / "browser") as browser, Served(out, "--every", "1") as served:
        browser.script(allowed=False)
        browser.open(served.url)
        assert "33 %" in browser.text
        assert "stands still without JavaScript" in browser.text
        assert browser.ask("document.querySelector('meta[http-equiv=refresh]').content") == "10"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(400, 844), (1280, 800)], ids=["phone", "laptop"])
def test_the_page_is_read_on_any_screen_and_by_keyboard(
    out: Path, tmp_path: Path, dark: bool, width: int, height: int
) -> None:
    with Browser(tmp_path / "browser") as browser, Served(out) as served:
        browser.open(served.url, width=width, height=height, dark=dark)
        browser.until("[...document.images].every(i => i.complete && i.naturalWidth)")
        seen = browser.ask(f"(() => {{{LOOK} return look(document, window); }})()")
        assert seen["dark"] == dark
        assert seen["overflow"] == 0
        assert seen["cut"] == []
        assert {k: v for k, v in seen["contrasts"].items() if v[0] < 4.5} == {}
        assert (seen["unnamed"], all(seen["outlines"])) == (0, True)
        assert (seen["skipShown"], seen["skipTarget"]) == (True, True)
        assert [url for url in browser.requests if not url.startswith(served.url)] == []
        assert browser.complaints == []


def test_an_update_keeps_what_is_open_and_where_the_keyboard_is(out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "pilot"
    shutil.copytree(out, copy)
    with Browser(tmp_path / "browser") as browser, Served(copy, "--every", "0.5") as served:
        browser.open(served.url)
        browser.until("document.body.innerText.includes('33 %')")
        summary = "document.querySelector('#figures summary')"
        browser.ask(f"{summary}.focus(); {summary}.click(); window.first = {summary}")
        run = next(r.name for r in (copy / "runs").glob("mars-adamw-*-seed5-*"))
        with (copy / "runs" / run / "rows.jsonl").open("a") as rows:
            rows.write('{"step": 700, "tokens": 358400, "seconds": 7.0, "loss": 2.1, "lr": 1e-3}\n')
        browser.until("document.body.innerText.includes('70 %')")
        browser.until("document.body.innerText.includes('2.1000')")
        assert browser.ask("window.first === document.activeElement")
        assert browser.ask("document.querySelector('#figures details').open")

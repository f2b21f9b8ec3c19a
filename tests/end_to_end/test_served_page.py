"""``mars watch --serve`` beside a real pilot, in a real browser."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.browser import Browser
from tests.support.served import Served, need_browser
from tests.support.small_pilot import Pilot

DONE = "parseInt(document.querySelector('#progress dd').textContent)"
LATER = "The verdict comes when all runs are in"


def begun(pilot: Pilot) -> None:
    """Wait until a run has begun."""
    end = time.monotonic() + 120
    while not list((pilot.out / "runs").glob("*/manifest.json")):
        assert time.monotonic() < end
        time.sleep(0.1)


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """The pilot's process, which is gone afterwards however the test went."""
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
def test_the_page_follows_a_real_pilot_to_its_verdict(
    new_pilot: Callable[[], Pilot], tmp_path: Path
) -> None:
    need_browser()
    pilot = new_pilot()
    pilot.options["training.steps"] = "150"  # still at work when the browser has opened
    with ended(pilot.start()) as running, contextlib.ExitStack() as opened:
        begun(pilot)
        served = opened.enter_context(Served(pilot.out, "--every", "0.5"))
        browser = opened.enter_context(Browser(tmp_path / "browser"))
        browser.open(served.url)
        browser.ask("window.first = true")
        browser.watch_shifts()
        assert LATER in browser.text
        before = browser.ask(DONE)
        browser.until(f"{DONE} > {before}")
        running.wait(timeout=240)
        browser.until("document.body.innerText.includes('This page no longer updates')")
        assert browser.ask("window.first")  # nobody has loaded the page again
        moved = browser.shifts(LATER)  # only the verdict, when it comes, makes room for itself
        assert sum(by for by, _ in moved) < 0.01, moved
        runs = len(pilot.finished())
        assert f"{runs} of {runs}" in browser.text
        assert "The pilot has ended." in browser.text
        title = browser.ask("document.querySelector('#verdict .title').textContent")
        assert (
            title
            == {
                "go": "Go",
                "no-go": "No-go",
                "not-enough-runs": "Not enough runs to tell",
            }[pilot.verdict()["verdict"]]
        )
        browser.follow("document.querySelector('#state a')")
        browser.until(
            "location.pathname === '/report.html' && !!document.querySelector('.verdict')"
        )
        asked = [url for url in browser.requests if not url.startswith(served.url)]
        assert asked == []
        assert browser.complaints == []
        assert served.end() == (130, "")

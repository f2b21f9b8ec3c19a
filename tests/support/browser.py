"""A page in real time: headless Chromium, driven over a pipe by its own protocol."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.closing import Closing
from tests.support.pages import CHROMIUM

OPTIONS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync --disable-quic "
    "--disable-background-networking --disable-component-update --remote-debugging-pipe"
).split()
START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for place, end in zip((3, 4), ends):  # where Chromium looks for its pipes
    os.dup2(end, place)
os.execv(sys.argv[3], sys.argv[3:])
"""
PATIENCE = 60.0  # seconds
SHIFTS = """window.shifts = []; new PerformanceObserver(found => {
  const title = document.querySelector("#verdict .title").textContent;
  for (const shift of found.getEntries()) {
    const moved = shift.sources.map(({ node, previousRect: a, currentRect: b }) =>
      `${node?.nodeName} ${node?.id || node?.className} ${a.x},${a.y} -> ${b.x},${b.y}`);
    window.shifts.push([title, shift.value, moved]);
  }
}).observe({type: "layout-shift", buffered: true});"""


class NavigatedError(AssertionError):
    """The page was left for another one before it could answer."""


class Browser(Closing):
    """One tab. It remembers every address that is asked for, and what the console says.

    Args:
        folder: for the browser's own files.
    """

    def __init__(self, folder: Path) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._ids = itertools.count(1)
        self._rest = b""
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        options = [*OPTIONS, f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                START,
                str(to_browser),
                str(from_browser),
                str(CHROMIUM),
                *options,
            ],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """End it."""
        self._session = ""
        self.call("Browser.close")
        self._process.wait(PATIENCE)
        os.close(self._out)
        os.close(self._in)

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call the protocol, and hear events until the answer comes."""
        number = next(self._ids)
        message: dict[str, Any] = dict(id=number, method=method, params=arguments)
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            heard = self._hear()
            if heard.get("id") == number:
                if "navigated" in heard.get("error", {}).get("message", ""):
                    raise NavigatedError(heard)
                assert "error" not in heard, heard
                return heard["result"]  # type: ignore[no-any-return]

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], PATIENCE)
            assert ready, "the browser is silent"
            more = os.read(self._in, 1 << 16)
            assert more, "the browser has gone"
            self._rest += more
        first, _, self._rest = self._rest.partition(b"\0")
        heard: dict[str, Any] = json.loads(first)
        said = heard.get("params", {})
        match heard.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(said["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
            case "Runtime.exceptionThrown":
                self.complaints.append(str(said["exceptionDetails"]))
        return heard

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Go to an address, and wait until it has loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = dict(name="prefers-color-scheme", value="dark" if dark else "light")
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def ask(self, expression: str) -> Any:
        """Value of an expression in the page; a promise is waited for."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def follow(self, link: str) -> None:
        """Click on this element, an expression, once the page has answered: it may go away."""
        self.ask(f"void setTimeout(link => link.click(), 0, {link})")

    def until(self, expression: str, patience: float = PATIENCE) -> Any:
        """Wait until an expression is true, in this page or in the one that follows it."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            with suppress(NavigatedError):
                if value := self.ask(expression):
                    return value
            time.sleep(0.1)
        raise AssertionError(f"not within {patience:g} seconds: {expression}\n{self.text}")

    @property
    def text(self) -> str:
        """All text of the page that is seen."""
        return str(self.ask("document.body.innerText"))

    def watch_shifts(self) -> None:
        """Remember all that moves without the reader's hand, since the page opened."""
        self.ask(SHIFTS)

    def shifts(self, title: str) -> list[tuple[float, list[str]]]:
        """Layout shifts under this title of the verdict: size (no unit), and the moved elements."""
        return [(by, moved) for under, by, moved in self.ask("window.shifts") if under == title]

    def script(self, allowed: bool) -> None:
        """Whether pages may run their scripts, from the next one on."""
        self.call("Emulation.setScriptExecutionDisabled", value=not allowed)

    def picture(self, path: Path) -> None:
        """Write a picture of the whole page."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

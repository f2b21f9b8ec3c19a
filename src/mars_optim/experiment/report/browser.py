"""A browser on this machine, without a window: a page becomes a PDF."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ...errors import UserError

NAMES = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"),
    *("msedge", "microsoft-edge", "microsoft-edge-stable", "brave-browser"),
)
MAC = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)
WINDOWS = (r"Google\Chrome\Application\chrome.exe", r"Microsoft\Edge\Application\msedge.exe")
OPTIONS = (
    *("--headless", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-extensions"),
    *("--disable-background-networking", "--disable-component-update", "--no-pdf-header-footer"),
)
LIMIT = 120  # seconds


def find_browser(environment: Mapping[str, str] | None = None) -> str:
    """Path of a Chromium, Chrome or Edge: that of ``$CHROME``, or the first well-known one.

    Args:
        environment: variables (default: None, the process's own).

    Raises:
        UserError: in one line, if ``$CHROME`` is no program or there is none.
    """
    environment = os.environ if environment is None else environment
    path = environment.get("PATH")
    if chosen := environment.get("CHROME"):
        if found := shutil.which(chosen, path=path):
            return found
        raise UserError(f"CHROME={chosen} cannot be started: give the path of a Chrome")
    if found := next(filter(None, (shutil.which(name, path=path) for name in NAMES)), None):
        return found
    folders = [
        environment.get(k, "") for k in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")
    ]
    windows = [str(Path(folder) / end) for folder in folders if folder for end in WINDOWS]
    if found := next((file for file in (*MAC, *windows) if Path(file).is_file()), None):
        return found
    raise UserError(
        f"--pdf needs a browser, and neither {', '.join(NAMES)} nor Chrome, Chromium or Edge "
        "in its usual folder was found: install one, set CHROME to its path, or print "
        "report.html"
    )


def print_to_pdf(html: str, browser: str) -> bytes:
    """The PDF of a page, as the browser prints it.

    Args:
        html: the whole page; it is a file of its own for that moment.
        browser: path of the program.

    Raises:
        UserError: in one line, if the browser fails or takes longer than two minutes.
    """
    with tempfile.TemporaryDirectory(prefix="mars-pdf-") as name:
        folder = Path(name)
        page, pdf = folder / "page.html", folder / "page.pdf"
        page.write_text(html, encoding="utf-8")
        root = ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
        command = [browser, *OPTIONS, *root, f"--user-data-dir={folder / 'profile'}"]
        command += [f"--print-to-pdf={pdf}", page.as_uri()]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, check=False
            )
            if pdf.exists():
                return pdf.read_bytes()
            lines = done.stderr.decode("utf-8", "replace").split("\n")
            said = next((line for line in reversed(lines) if line.strip()), "no message")
            why = f"wrote no PDF (status {done.returncode}: {said[:200]})"
        except subprocess.TimeoutExpired:
            why = f"took longer than {LIMIT} s"
        except OSError as error:
            why = f"cannot be started: {error.strerror}"
    raise UserError(f"{browser} {why}; set CHROME to another browser, or print report.html")


def pages_of(pdf: bytes) -> int:
    """Number of pages of a PDF that a browser wrote: its page objects stand uncompressed."""
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf))

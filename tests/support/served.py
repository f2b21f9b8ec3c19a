"""``mars watch --serve`` in a process of its own, and a browser beside it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.closing import Closing
from tests.support.pages import CHROMIUM
from tests.support.small_pilot import MARS


def need_browser() -> None:
    """Skip the test, or fail it where CI has installed a browser (MARS_TEST_BROWSER=1)."""
    if CHROMIUM is None and os.environ.get("MARS_TEST_BROWSER") == "1":
        pytest.fail("no chromium on this machine, and MARS_TEST_BROWSER=1 asks for it")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")


class Served(Closing):
    """The page of a pilot; ended by Ctrl-C.

    Args:
        out: folder of the pilot.
        options: of the command.
    """

    def __init__(self, out: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [*MARS, "watch", str(out), "--serve", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, (line, self.process.communicate())
        self.url = found[0]

    @property
    def port(self) -> str:
        found = re.search(r":(\d+)/", self.url)
        assert found
        return found[1]

    def end(self, patience: float = 10.0) -> tuple[int, str]:
        """Press Ctrl-C; the exit status, and what stood on stderr."""
        self.process.send_signal(signal.SIGINT)
        _, stderr = self.process.communicate(timeout=patience)
        return self.process.returncode, stderr

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

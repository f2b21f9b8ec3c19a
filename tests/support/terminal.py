"""A program on a real pseudo-terminal, typed at and read."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.closing import Closing

ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>]|\([A-Z])|\x07")


class Terminal(Closing):
    """A program whose stdin, stdout and stderr are a terminal.

    Args:
        command: to run.
        folder: that it runs in.
        environment: added to this process's own.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            env={**os.environ, "TERM": "xterm", **(environment or {})},
            preexec_fn=_take_terminal,
        )
        os.close(theirs)
        self.text = ""  # all that was shown
        self.read = 0  # characters of it that an expect has passed

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.ours, text.encode())

    def expect(self, words: str, seconds: float = 60.0) -> str:
        """Wait for words after those of the last expect; what was shown up to their end."""
        end = time.monotonic() + seconds
        while (found := self.text.find(words, self.read)) < 0:
            left = end - time.monotonic()
            if left <= 0 or not self._take(left):
                raise AssertionError(f"{words!r} never came after {self.text[self.read :]!r}")
        before = self.text[self.read : found + len(words)]
        self.read = found + len(words)
        return before

    def ended(self, seconds: float = 60.0) -> int:
        """Wait for the end; the exit status."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._take(1.0):
            pass
        return self.process.wait(timeout=max(0.1, end - time.monotonic()))

    def _take(self, seconds: float) -> bool:
        """Read once; False when the program has closed its side."""
        if not select.select([self.ours], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.ours, 65536)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False
        self.text += ESCAPES.sub("", data.decode(errors="replace")).replace("\r\n", "\n")
        return bool(data)


def _take_terminal() -> None:
    os.setsid()
    with contextlib.suppress(OSError):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)

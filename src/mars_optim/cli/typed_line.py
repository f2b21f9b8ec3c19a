"""A line typed at a terminal, and a Ctrl-C in its place that is never lost."""

from __future__ import annotations

import os
import select
import signal
import sys


def typed_line() -> str:
    """Wait for a line on standard input; its text without the line's end.

    Python looks for signals before it reads, not while it begins to read. A Ctrl-C in between
    ends neither ``input`` nor ``readline``: both wait for the next Enter. Here the signal
    also writes into a pipe, and the wait ends for the pipe as well as for the terminal.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        EOFError: at the end of the input.
    """
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    before = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    try:
        while sys.stdin not in (ready := select.select([sys.stdin, woken], [], [])[0]):
            if ready:  # a signal; its handler has run, and did not raise
                os.read(woken, 4096)
        line = sys.stdin.readline()
    finally:
        signal.set_wakeup_fd(before)
        os.close(woken)
        os.close(waker)
    if not line:
        raise EOFError
    return line.rstrip("\n")

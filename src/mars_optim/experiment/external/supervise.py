"""Runs a command that ends with whoever started it, however that ended.

    python -m mars_optim.experiment.external.supervise LOCKS FOLDER COMMAND...

The command and all that it starts form one process group. It is ended when standard input is
closed, which the operating system does for a process that was killed, too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from ..records.lock import worker_lock

GRACE = 5.0  # seconds between asking and killing


def main(locks: str, folder: str, *words: str) -> int:
    """Run ``words`` in ``folder``.

    Args:
        locks: folder of the pilot, which no other may use while the command may write in it.
        folder: to run in.
        words: the command.

    Returns:
        The command's exit status; 128 and the signal's number for one ended by a signal; 127 for
        one that cannot be started.
    """
    with worker_lock(Path(locks)):
        child = _started(words, folder)
        if child is None:
            return 127
        threading.Thread(target=_end_with_input, args=(child.pid,), daemon=True).start()
        status = child.wait()
        _signal_group(child.pid, signal.SIGKILL)  # what it left in the background
    return status if status >= 0 else 128 - status


def _started(words: tuple[str, ...], folder: str) -> subprocess.Popen[bytes] | None:
    try:
        return subprocess.Popen(words, cwd=folder, stdin=subprocess.DEVNULL, process_group=0)
    except OSError as error:
        print(f"{words[0]} cannot be started: {error.strerror}", file=sys.stderr)
        return None


def _end_with_input(group: int) -> None:
    os.read(0, 1)
    _signal_group(group, signal.SIGTERM)
    time.sleep(GRACE)
    _signal_group(group, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""A worker's life: load the task, then do what is asked for until the pilot is gone."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..records import Plan, UserError
from ..records.lock import worker_lock
from .shares import Share

REPORT_EVERY = 0.2  # seconds between reports of a run's steps
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def serve(connection: Connection, plan: Plan, out: Path, share: Share) -> None:
    """Run in a process of its own, and answer through ``connection``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pilot's; it ends the workers
    threading.Thread(target=_end_with_the_pilot, daemon=True).start()
    share.take()
    with contextlib.suppress(_PilotGone):
        try:
            with worker_lock(out):
                _work(connection, plan, out, share)
        except (UserError, ValueError) as error:
            _say(connection, "mistake", str(error))
        except OSError as error:
            _say(connection, "mistake", describe(error, out))
        except Exception as error:
            _say(connection, "crash", _crash(error))


def _work(connection: Connection, plan: Plan, out: Path, share: Share) -> None:
    from .job import load_job

    job = load_job(plan, out, share.threads)
    _say(connection, "ready", job.fingerprint)
    while True:
        try:
            work = connection.recv()
        except (EOFError, OSError):
            raise _PilotGone from None
        try:
            if work == "probe":
                _say(connection, "probed", job.probe())
            else:
                _say(connection, "done", job.run(work, _Reporter(connection)))
        except _PilotGone:
            raise
        except Exception as error:  # the run's, not the pilot's: other runs go on
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise  # no run can go on
            _say(connection, "crash", _crash(error))


class _PilotGone(Exception):  # noqa: N818 (nothing went wrong here)
    """Nobody listens any more."""


def _say(connection: Connection, kind: str, value: Any) -> None:
    try:
        connection.send((kind, value))
    except OSError:
        raise _PilotGone from None


def describe(error: OSError, out: Path) -> str:
    """One line for an error of the file system, with the way out."""
    text = f"{error.filename or out}: {error.strerror or error}"
    return f"{text}; make room, and the same command goes on" if error.errno in NO_ROOM else text


def _crash(error: Exception) -> tuple[str, str]:
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return line[:300], traceback.format_exc()


def _end_with_the_pilot() -> None:
    """End this process with the pilot, whatever a run is doing."""
    pilot = multiprocessing.parent_process()
    assert pilot is not None
    multiprocessing.connection.wait([pilot.sentinel])
    os._exit(1)


class _Reporter:
    """Sends the steps taken, now and then. Sending fails, and ends the run, with the pilot."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.last = 0.0

    def __call__(self, step: int) -> None:
        now = time.monotonic()
        if now - self.last > REPORT_EVERY:
            _say(self.connection, "step", step)
            self.last = now

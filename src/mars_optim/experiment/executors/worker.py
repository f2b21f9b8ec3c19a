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
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError
from ..plan import Plan, RunSpec
from ..records import Outcome, read_run
from ..records.lock import run_lock, worker_lock
from .resources import Resources

if TYPE_CHECKING:
    from .runnable import Runnable

REPORT_EVERY = 0.2  # seconds between reports of a run's steps
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def serve(connection: Connection, plan: Plan, out: Path, resources: Resources) -> None:
    """Run in a process of its own, and answer through ``connection``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pilot's; it ends the workers
    threading.Thread(target=_end_with_the_pilot, daemon=True).start()
    resources.take()
    with contextlib.suppress(_PilotGone), worker_lock(out):
        _work(connection, plan, out, resources)


def _work(connection: Connection, plan: Plan, out: Path, resources: Resources) -> None:
    runnable: Runnable | None = None

    def load() -> tuple[str, Any]:
        nonlocal runnable
        from .runnable import load_runnable

        runnable = load_runnable(plan, out, resources.threads)
        return "ready", runnable.fingerprint

    _say(connection, *answer(load, out, starting=True))
    while runnable is not None:
        try:
            work = connection.recv()
        except (EOFError, OSError):
            raise _PilotGone from None
        probing = not isinstance(work, RunSpec)  # what fails then fails for every run
        _say(
            connection,
            *answer(partial(_do, runnable, work, out, connection), out, starting=probing),
        )


def _do(
    runnable: Runnable, work: RunSpec | str, out: Path, connection: Connection
) -> tuple[str, Any]:
    if isinstance(work, RunSpec):
        return "done", run_once(runnable, work, out, _Reporter(connection))
    return "probed", runnable.probe()


def run_once(
    runnable: Runnable, spec: RunSpec, out: Path, on_step: Callable[[int], None]
) -> Outcome:
    """Carry out a run, unless another process has; while another does, wait."""
    with run_lock(out / "runs" / spec.run_id):
        return outcome_of(out, spec) or runnable.run(spec, on_step)


def outcome_of(out: Path, spec: RunSpec) -> Outcome | None:
    """The outcome of a run if it has finished."""
    try:
        return read_run(out / "runs" / spec.run_id).outcome
    except UserError:  # not begun, or damaged
        return None


def answer(
    do: Callable[[], tuple[str, Any]], out: Path, *, starting: bool = False
) -> tuple[str, Any]:
    """The result of ``do``, or the reason why it failed.

    Returns:
        Its own answer; ("mistake", one line), after which no run can go on; or ("crash", (one
        line, traceback)), which is the run's own affair.
    """
    try:
        return do()
    except _PilotGone:
        raise
    except Exception as error:
        if isinstance(error, OSError) and (starting or error.errno in NO_ROOM):
            return "mistake", describe(error, out)
        if isinstance(error, UserError | ValueError) and starting:
            return "mistake", str(error)
        return "crash", _crash(error)


class _PilotGone(Exception):  # noqa: N818 (nothing went wrong here)
    """Nobody listens any more."""


def _say(connection: Connection, kind: str, value: Any) -> None:
    try:
        connection.send((kind, value))
    except OSError:
        raise _PilotGone from None


def describe(error: OSError, out: Path | str) -> str:
    """One line for an error of the file system, with the way out."""
    text = f"{error.filename or out}: {error.strerror or error}"
    if error.errno == errno.EROFS:
        return f"{text}; give a folder that can be written"
    return (
        f"{text}; free some space, then run the same command again to continue"
        if error.errno in NO_ROOM
        else text
    )


def _crash(error: Exception) -> tuple[str, str]:
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    line = " ".join(f"{kind}{error}".split())
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

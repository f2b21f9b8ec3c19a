"""One pilot per folder: locks that the operating system drops with the process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ...errors import UserError
from ...files import no_link

try:
    import fcntl
except ImportError:  # no such locks on this system: two pilots in one folder are not noticed
    fcntl = None  # type: ignore[assignment]

PATIENCE = 10.0  # seconds for the workers of a killed pilot to notice and end


@contextlib.contextmanager
def pilot_lock(out: Path) -> Iterator[None]:
    """Hold ``out`` for this process, once no worker of an earlier one is left.

    Raises:
        UserError: if another pilot runs in ``out``.
    """
    with _open(out / ".lock") as pilot, _open(out / ".workers.lock") as workers:
        if not _locked(pilot, exclusive=True):
            raise UserError(f"another pilot is running in {out}; wait for it, or use another --out")
        deadline = time.monotonic() + PATIENCE
        while not _locked(workers, exclusive=True):
            if time.monotonic() > deadline:
                raise UserError(f"a worker of an earlier pilot still writes in {out}; end it first")
            time.sleep(0.1)
        _unlock(workers)
        yield


@contextlib.contextmanager
def worker_lock(out: Path) -> Iterator[None]:
    """Show that a worker may still write in ``out``."""
    with _open(out / ".workers.lock") as workers:
        _locked(workers, exclusive=False)
        yield


@contextlib.contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Hold a run's folder for this process, once whoever holds it has ended.

    On a network file system the lock is the server's, so it holds between machines.
    """
    run.mkdir(parents=True, exist_ok=True)
    with _open(run / ".lock") as file:
        while not _locked(file, exclusive=True):
            time.sleep(0.5)
        yield


@contextlib.contextmanager
def folder_lock(out: Path) -> Iterator[None]:
    """Hold a folder that is being prepared for this process.

    Raises:
        UserError: if another one holds it.
    """
    with _open(out / ".lock") as file:
        if not _locked(file, exclusive=True):
            raise UserError(
                f"another process is writing in {out}; wait for it, or use another --out"
            )
        yield


def is_locked(run: Path) -> bool:
    """Whether a process, here or on another machine, holds the run's folder."""
    try:
        with (run / ".lock").open("r+") as file:
            return not _locked(file, exclusive=True)
    except FileNotFoundError:
        return False


def _open(path: Path) -> IO[str]:
    return open(path, "a", opener=no_link)


def _locked(file: IO[str], *, exclusive: bool) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(
            f"{file.name}: this file system has no locks ({error.strerror}), so two pilots could "
            "write over each other: mount it with locks (on Lustre: flock), or use another --out"
        ) from None
    return True


def _unlock(file: IO[str]) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_UN)

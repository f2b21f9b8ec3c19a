"""One pilot per folder: locks that the operating system drops with the process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .errors import UserError

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
    with (out / ".lock").open("a") as pilot, (out / ".workers.lock").open("a") as workers:
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
    with (out / ".workers.lock").open("a") as workers:
        _locked(workers, exclusive=False)
        yield


def _locked(file: IO[str], *, exclusive: bool) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _unlock(file: IO[str]) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_UN)

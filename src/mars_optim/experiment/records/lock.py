"""One pilot per folder: locks that the operating system drops with the process."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ...errors import UserError
from ...files import no_link

try:
    import fcntl
except ImportError:  # no shared locks on this system: workers that outlive their pilot go unnoticed
    fcntl = None  # type: ignore[assignment]

PATIENCE = 10.0  # seconds for the workers of a killed pilot to notice and end
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextlib.contextmanager
def pilot_lock(out: Path) -> Iterator[None]:
    """Hold ``out`` for this process, once no worker of an earlier one is left.

    Raises:
        UserError: if another pilot runs in ``out``.
    """
    running = f"another pilot is running in {out}; wait for it, or use another --out"
    writing = f"a worker of an earlier pilot still writes in {out}; end it first"
    with _held(out / ".lock", running):
        with _held(out / ".workers.lock", writing, PATIENCE):
            pass  # no worker is left
        yield


@contextlib.contextmanager
def worker_lock(out: Path) -> Iterator[None]:
    """Show that a worker may still write in ``out``. Workers share it, which FileLock cannot."""
    with open(out / ".workers.lock", "a", opener=no_link) as file:
        if fcntl is not None:
            with _told(file.name):
                fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Hold a run's folder for this process, once whoever holds it has ended.

    On a network file system the lock is the server's, so it holds between machines.
    """
    run.mkdir(parents=True, exist_ok=True)
    with _held(run / ".lock", "", -1):
        yield


@contextlib.contextmanager
def folder_lock(out: Path) -> Iterator[None]:
    """Hold a folder that is being prepared for this process.

    Raises:
        UserError: if another one holds it.
    """
    held = f"another process is writing in {out}; wait for it, or use another --out"
    with _held(out / ".lock", held):
        yield


def is_locked(run: Path) -> bool:
    """Whether a process, here or on another machine, holds the run's folder."""
    path = run / ".lock"
    if not path.exists():
        return False
    try:
        with _told(path), _lock(path):
            return False
    except Timeout:
        return True


@contextlib.contextmanager
def _held(path: Path, refusal: str, patience: float = 0) -> Iterator[None]:
    """Hold a file's lock; ``patience`` -1 waits for ever."""
    lock = _lock(path, patience)
    with _told(path):
        try:
            lock.acquire()
        except Timeout:
            raise UserError(refusal) from None
    try:
        yield
    finally:
        lock.release()


def _lock(path: Path, patience: float = 0) -> FileLock:
    return FileLock(path, timeout=patience, fallback_to_soft=False, thread_local=False)


@contextlib.contextmanager
def _told(path: object) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise UserError(
            f"{path}: this file system has no locks ({error.strerror}), so two pilots could "
            "write over each other: mount it with locks (on Lustre: flock), or use another --out"
        ) from None

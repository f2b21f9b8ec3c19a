"""Where built libraries are kept: a folder that nobody else can write, files that prove themselves.

A library's name ends in the hash of its bytes, so what was cut short or swapped is known before it
is loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
from pathlib import Path

from ....files import whole_file

CACHE = "MARS_OPTIM_CACHE"  # in the environment: the folder
LARGEST = 1 << 26  # bytes of a library; ours have tens of thousands
_OPEN = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "O_BINARY")
)

log = logging.getLogger("mars_optim")


class UntrustedError(RuntimeError):
    """Another user could put a library of their own there."""


def folder() -> Path:
    """The cache folder, made if it is not there yet.

    Raises:
        UntrustedError: if it, or a folder above it, is another user's or others may write to it.
        OSError: if it cannot be made.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(os.environ.get(CACHE) or Path(base) / "mars-optim").resolve()
    for above in reversed(path.parents):
        if above.exists():  # what is not there yet will be ours
            check(above.stat(), above, shared=True)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    check(path.stat(), path)
    return path


def check(found: os.stat_result, path: Path, *, shared: bool = False) -> None:
    """Raise UntrustedError unless only this user, or root, can put a file of theirs there.

    Args:
        found: of the file or folder.
        path: its name.
        shared: whether it is a folder above ours: its group may write there, and in one like /tmp
            (sticky) all may, for they cannot rename ours (default: False).
    """
    if not hasattr(os, "getuid"):
        return
    if found.st_uid not in (0, os.getuid()):
        raise UntrustedError(f"{path} belongs to another user (uid {found.st_uid})")
    others = stat.S_IWOTH if shared else stat.S_IWGRP | stat.S_IWOTH
    if found.st_mode & others and not (shared and found.st_mode & stat.S_ISVTX):
        raise UntrustedError(f"other users may write to {path} (mode {found.st_mode & 0o7777:o})")


def find(folder: Path, stem: str) -> Path | None:
    """The library that was kept as ``stem``, whole and ours; others of that name are deleted."""
    for path in sorted(folder.glob(f"{stem}-*.so")):
        try:
            if path.name == _name(stem, _read(path)):
                return path
            reason = "is damaged"
        except (OSError, UntrustedError) as error:
            reason = f"is not used ({error})"
        log.info("%s %s and will be built anew", path, reason)
        with contextlib.suppress(OSError):
            path.unlink()
    return None


def keep(folder: Path, stem: str, data: bytes) -> Path:
    """Write a library under its name: all of it or nothing, also if the power fails.

    Raises:
        OSError: if it cannot be written.
    """
    path = folder / _name(stem, data)
    with whole_file(path, "wb") as file:
        os.chmod(file.name, 0o600)
        file.write(data)
    with contextlib.suppress(OSError):  # not every system can sync a folder
        entry = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(entry)
        finally:
            os.close(entry)
    return path


def _name(stem: str, data: bytes) -> str:
    return f"{stem}-{hashlib.sha256(data).hexdigest()[:32]}.so"


def _read(path: Path) -> bytes:
    """The bytes of a plain file that only this user, or root, can write."""
    with open(os.open(path, _OPEN), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
            raise UntrustedError(f"{path} is not a library")
        check(found, path)
        return file.read(LARGEST)

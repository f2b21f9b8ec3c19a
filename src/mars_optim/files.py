"""Files that are there whole or not at all, and that nobody else can redirect."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .errors import DamagedError, UserError

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


@contextlib.contextmanager
def whole_file(path: Path, mode: str = "w", *, ending: str = ".tmp") -> Iterator[IO[Any]]:
    """A file under a name that nobody can guess, which takes its own when the block ends well.

    The name is new (O_EXCL) and no link is followed, so that another user of a shared folder
    cannot have a file of ours overwritten. Its permissions are those of any new file.

    Args:
        path: of the file.
        mode: "w" for UTF-8 text, "wb" for bytes.
        ending: of the name until then.
    """
    beside = beside_of(path, ending)
    encoding = None if "b" in mode else "utf-8"
    try:
        with open(beside, mode, encoding=encoding, opener=_new) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def beside_of(path: Path, ending: str) -> Path:
    """A name beside ``path`` that nobody can guess."""
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}{ending}")


def no_link(path: str, flags: int) -> int:
    """For ``open(..., opener=no_link)``: a file of our own, refused where a link is in its place.

    Raises:
        OSError: if ``path`` is a link.
    """
    return os.open(path, flags | NO_FOLLOW, 0o666)


def check_appendable(path: Path, name: str) -> None:
    """See that lines can be added to a file; its folder is made, and no file.

    Args:
        path: of the file.
        name: of the argument, for the message.

    Raises:
        ValueError: naming both, if not.
    """
    reason = "it is a folder" if path.is_dir() else ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = str(error)
    if not reason and not os.access(path if path.exists() else path.parent, os.W_OK):
        reason = "it is read-only"
    if reason:
        raise ValueError(
            f"{name}={str(path)!r} cannot be written ({reason}): give the path of a file"
        )


def _new(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o666)


def write_json(path: Path, data: Any) -> None:
    """Write whole or not at all: to a file beside it, to the disk, then renamed over it."""
    write_text(path, json.dumps(data, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """As :func:`write_json`, for text."""
    with whole_file(path) as file:
        file.write(text)


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        DamagedError: naming the file, if it holds no JSON.
        UserError: naming the file, if it is missing or cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from None

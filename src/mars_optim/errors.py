"""The one error that is the user's to mend: shown as one line, without a traceback."""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class UserError(Exception):
    """An error of the user's: where, what, the allowed values and the way out, in one line."""


class DamagedError(UserError):
    """A file that holds neither what was written to it nor anything else that can be read."""


def did_you_mean(word: object, allowed: Iterable[str], prefix: str = "") -> str:
    """``; did you mean 'x'?`` for the nearest allowed word, shown after ``prefix``, or nothing."""
    near = difflib.get_close_matches(str(word), list(allowed), n=1)
    return f"; did you mean {prefix + near[0]!r}?" if near else ""


def check_folder(path: Path, what: str = "a pilot or of runs") -> None:
    """See that a path that must be a folder, or is to become one, is no file.

    Args:
        path: given by the user.
        what: the folder is of, for the message.

    Raises:
        UserError: if it is a file.
    """
    if path.is_file():
        raise UserError(f"{path} is a file: give the folder of {what}")


def check_writable(folder: Path) -> None:
    """See, before work is done for it, that a folder can be made or written into.

    Args:
        folder: given by the user; it need not be there, and is not made.

    Raises:
        UserError: if it is a file, or it or the folder that it would be made in is read-only.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"{folder} cannot be written: {there} is a file; give another folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be written: {there} is read-only; give another folder")


def check_text(name: str, what: str = "this argument") -> None:
    """See that what the operating system gave is text: it is written down.

    Args:
        name: of a file, or an argument.
        what: it is, for the message.

    Raises:
        UserError: if it is not UTF-8.
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        raise UserError(f"{shown}: {what} is not UTF-8; rename the file") from None


def need(module: str, extra: str) -> Any:
    """Import ``module``, which an extra of mars-optim brings.

    Raises:
        UserError: with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise UserError(f"{package} is not installed: pip install 'mars-optim[{extra}]'") from None

"""The one error that is the user's to mend: shown as one line, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What is wrong, where, what is allowed, and the way out, in one line."""


class DamagedError(UserError):
    """A file that holds neither what was written to it nor anything else that can be read."""


def did_you_mean(word: object, allowed: Iterable[str], prefix: str = "") -> str:
    """``; did you mean 'x'?`` for the nearest allowed word, shown after ``prefix``, or nothing."""
    near = difflib.get_close_matches(str(word), list(allowed), n=1)
    return f"; did you mean {prefix + near[0]!r}?" if near else ""

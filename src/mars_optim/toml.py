"""TOML of the user's, bounded before it is parsed: size, depth and the length of keys."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from .errors import UserError

LARGEST = 2**20
"""Bytes of a file. The largest recipe has 8 thousand."""

DEEPEST = 32
"""Brackets in brackets, and names in a dotted key. A plan has four."""

_TOO_LARGE = f"it has more than {LARGEST:,} bytes"
_PART = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{DEEPEST},}}+")
_TOKENS = re.compile(
    r'"""(?s:.*?)"""|' + r"'''(?s:.*?)'''|" + r'"(?:\\.|[^"\\\n])*+"|' + r"'[^'\n]*+'|#[^\n]*+"
)


def read_toml(path: Path, hint: str) -> dict[str, Any]:
    """Parse a TOML file.

    Args:
        path: of the file.
        hint: what to do where there is none.

    Raises:
        UserError: naming the file, and what in it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ValueError(_TOO_LARGE)
        return parse_toml(data.decode("utf-8-sig"))  # some editors begin with a mark
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {hint}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; give the plan's TOML file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no valid TOML: {error}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML that is neither too large nor too deep for the parser.

    Raises:
        ValueError: with the line, if it is, or is no TOML.
    """
    if len(text) > LARGEST:
        raise ValueError(_TOO_LARGE)
    bare = _TOKENS.sub(_emptied, text)  # brackets and dots in strings and comments are text
    depth = 0
    for bracket in re.finditer(r"[\[\]{}]", bare):
        depth += 1 if bracket.group() in "[{" else -1
        if depth > DEEPEST:
            raise ValueError(_too_deep("brackets stand in brackets", bare, bracket.start()))
    if long := _LONG_KEY.search(bare):
        raise ValueError(_too_deep("names stand in one dotted key", bare, long.start()))
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError(f"it is nested more than {DEEPEST} deep") from None


def _emptied(token: re.Match[str]) -> str:
    """A string without its text, a comment without all; lines are still where they were."""
    text = token.group()
    return ("" if text.startswith("#") else '""') + "\n" * text.count("\n")


def _too_deep(what: str, text: str, place: int) -> str:
    line = text.count("\n", 0, place) + 1
    return f"more than {DEEPEST} {what} (at line {line})"

"""Which documents are validated on."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Literal

Split = Literal["train", "valid"]

_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "test": "valid",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
}


def split_of(path: Path) -> Split | None:
    """The split that a file's name begins with; None if it tells nothing."""
    word = re.match(r"[a-z]+", path.name.lower())
    return _NAMES.get(word.group()) if word else None


def split_by_hash(document: bytes, share: float) -> Split:
    """The same split for the same document, wherever and in whatever order it is read.

    Args:
        document: as UTF-8.
        share: of the documents that are for validation.
    """
    place = int.from_bytes(sha256(document).digest()[:8]) / 2**64
    return "valid" if place < share else "train"

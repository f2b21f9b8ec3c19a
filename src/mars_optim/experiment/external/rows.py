"""A row of a file of metrics, and who reads such a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol


class Row(dict[str, Any]):
    """A row by the names of its columns, and where it stands, for messages."""

    def __init__(self, values: Any, place: str = "") -> None:
        super().__init__(values)
        self.place = place


class Reader(Protocol):
    """A file that is read as it grows."""

    path: Path

    def rows(self, *, final: bool) -> Iterator[Row]:
        """Rows since the last call; ``final``: a last line without an end counts too."""
        ...

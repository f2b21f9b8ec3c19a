"""One source of documents: a file of the user's, or a data set of the hub."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from .validation_split import Split

Kind = Literal["text", "jsonl", "parquet", "hub", "bin"]


_PROBE = 2**16


@dataclass(frozen=True, slots=True)
class Source:
    """A file of the user's, or a data set of the hub.

    Args:
        kind: how it is read.
        path: of the file; of a data set, its name or folder.
        name: in the manifest.
        split: where all of it belongs; None if each document goes by its hash.
        config: of a data set of the hub.
        hub_split: of a data set.
        bytes: its size.
        packed: whether it is unpacked as it is read.
    """

    kind: Kind
    path: str
    name: str
    split: Split | None
    bytes: int
    config: str = ""
    hub_split: str = ""
    packed: bool = False

    @property
    def description(self) -> list[Any]:
        """Name, size, and a hash that tells another file of the same name from it at no cost."""
        return [self.name, self.bytes, self.split or "by hash", self._probe()]

    def _probe(self) -> str:
        if self.kind == "hub":
            return ""
        with Path(self.path).open("rb") as file:
            first = file.read(_PROBE)
            file.seek(max(0, self.bytes - _PROBE))
            return sha256(first + file.read(_PROBE)).hexdigest()[:16]

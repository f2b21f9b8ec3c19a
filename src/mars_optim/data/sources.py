"""What the sources are, and the pieces of them that one process reads at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from ..records import UserError
from ..tasks.text import SUFFIXES
from .bins import bin_tokens
from .parquet import open_parquet
from .split import Split, split_of

Kind = Literal["text", "jsonl", "parquet", "hub", "bin"]

_KINDS: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".bin": "bin",
}
_LEAST_PIECE, _MOST_PIECE, _PIECES = 2**20, 2**26, 64
_PROBE = 2**16
_PACKED = {".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz"}


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
    """

    kind: Kind
    path: str
    name: str
    split: Split | None
    bytes: int
    config: str = ""
    hub_split: str = ""

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


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a source, or some whole small files of one folder.

    Args:
        sources: one, or more text files that are read whole.
        start: first byte (text, jsonl), row group (parquet), row (hub) or token (bin).
        stop: the one after the last.
        bytes: about how many of the sources, for the progress.
    """

    sources: tuple[Source, ...]
    start: int
    stop: int
    bytes: int


def find_sources(
    given: Sequence[str], split: Split | None = None, config: str = ""
) -> list[Source]:
    """All files that the user's words name, in order.

    Args:
        given: files, folders, and "hf:NAME" for data sets of the Hugging Face hub.
        split: where all of them belong, if that is given.
        config: of the data sets of the hub.

    Raises:
        UserError: if one does not exist or holds nothing that can be read.
    """
    found: list[Source] = []
    for word in given:
        path = Path(word)
        if word.startswith("hf:") or _is_saved_dataset(path):
            from .hub import hub_sources

            found += hub_sources(word.removeprefix("hf:"), config, split)
        elif path.is_dir():
            inside = [
                _file(p, path.parent, split) for p in sorted(path.rglob("*")) if _known(p, path)
            ]
            if not inside:
                raise UserError(f"{word} holds no text, JSONL, Parquet or .bin file")
            found += inside
        elif path.is_file():
            found.append(_file(path, path.parent, split))
        else:
            raise UserError(f"{word} does not exist; a data set of the hub is hf:NAME")
    return found


def check_once(sources: Sequence[Source]) -> None:
    """See that nothing is trained on twice, or trained on and validated on.

    Raises:
        UserError: naming what is given twice.
    """
    seen = set()
    for source in sources:
        path = source.path if source.kind == "hub" else str(Path(source.path).resolve())
        key = (path, source.config, source.hub_split)
        if key in seen:
            raise UserError(f"{source.path} is given twice")
        seen.add(key)


def _is_saved_dataset(path: Path) -> bool:
    return any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))


def _known(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return not hidden and path.suffix in {*SUFFIXES, *_KINDS} and path.is_file()


def _file(path: Path, root: Path, split: Split | None) -> Source:
    if path.suffix in _PACKED:
        raise UserError(f"{path} is packed: unpack it first")
    kind = _KINDS.get(path.suffix, "text")
    if kind == "bin" and split is None:
        split = split_of(path)
        if split is None:
            raise UserError(
                f"{path} must be called train*.bin or val*.bin, or be given after --valid"
            )
    name = path.relative_to(root).as_posix()
    return Source(kind, str(path), name, split, path.stat().st_size)


def cut(sources: Sequence[Source]) -> list[Piece]:
    """The sources in pieces of like size, which depend on nothing but the sources."""
    total = sum(source.bytes for source in sources)
    size = min(_MOST_PIECE, max(_LEAST_PIECE, total // _PIECES))
    pieces: list[Piece] = []
    small: list[Source] = []

    def gather() -> None:
        if small:
            pieces.append(Piece(tuple(small), 0, 0, sum(source.bytes for source in small)))
            small.clear()

    for source in sources:
        if source.kind == "text" and source.bytes <= size:
            if small and sum(s.bytes for s in small) + source.bytes > size:
                gather()
            small.append(source)
        else:
            gather()
            pieces += _pieces(source, size)
    gather()
    return pieces


def _pieces(source: Source, size: int) -> Iterator[Piece]:
    units = _units(source)
    per_piece = max(1, size * units // max(1, source.bytes))
    for start in range(0, units, per_piece):
        stop = min(start + per_piece, units)
        yield Piece((source,), start, stop, source.bytes * (stop - start) // units)


def _units(source: Source) -> int:
    """How many of what a piece's start and stop count."""
    if source.kind == "parquet":
        return int(open_parquet(Path(source.path)).num_row_groups)
    if source.kind == "hub":
        from .hub import rows

        return rows(source.path, source.config, source.hub_split)
    if source.kind == "bin":
        return bin_tokens(Path(source.path))[1]
    return source.bytes

"""What the sources are, and the pieces of them that one process reads at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError, check_text
from ..tasks.text import SUFFIXES
from .bins import bin_tokens
from .folders import files_below, told
from .packed import OTHERS, READ
from .parquet import open_parquet
from .source import Kind, Source
from .validation_split import Split, split_of

_KINDS: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".bin": "bin",
}
_LEAST_PIECE, _MOST_PIECE, _PIECES = 2**20, 2**26, 64


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
    given: Sequence[str],
    split: Split | None = None,
    config: str = "",
    left_out: list[Path] | None = None,
) -> list[Source]:
    """All files that the user's words name, in order.

    Args:
        given: files, folders, and "hf:NAME" for data sets of the Hugging Face hub.
        split: where all of them belong, if that is given.
        config: of the data sets of the hub.
        left_out: takes the files of folders that are not read.

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
            files, unread = files_below(path)
            inside = [_file(p, path.parent, split) for p in files if _known(p)]
            unread += [p for p in files if not _known(p)]
            if not inside:
                more = f"; {told(unread)}" if unread else ""
                raise UserError(f"{word} holds no text, JSONL, Parquet or .bin file{more}")
            found += inside
            if left_out is not None:
                left_out += unread
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


def _known(path: Path) -> bool:
    ending, packed = _ending(path)
    kinds = {kind for kind, name in _KINDS.items() if name == "jsonl"} if packed else _KINDS
    return ending in {*SUFFIXES, *kinds}


def _ending(path: Path) -> tuple[str, bool]:
    """In lower case, without that of its packing; and whether it is packed."""
    packed = path.suffix.lower() in READ
    return (Path(path.stem) if packed else path).suffix.lower(), packed


def _file(path: Path, root: Path, split: Split | None) -> Source:
    check_text(str(path), "this file's name")
    ending, packed = _ending(path)
    if path.suffix.lower() in OTHERS or (packed and ending in {*OTHERS, ".parquet", ".bin"}):
        raise UserError(f"{path} is packed: unpack it first")
    kind = _KINDS.get(ending, "text")
    if kind == "bin" and split is None:
        split = split_of(path)
        if split is None:
            raise UserError(
                f"{path} must be called train*.bin or val*.bin, or be given after --valid"
            )
    name = path.relative_to(root).as_posix()
    return Source(kind, str(path), name, split, path.stat().st_size, packed=packed)


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
    if source.packed:
        return 1
    if source.kind == "parquet":
        return int(open_parquet(Path(source.path)).num_row_groups)
    if source.kind == "hub":
        from .hub import rows

        return rows(source.path, source.config, source.hub_split)
    if source.kind == "bin":
        return bin_tokens(Path(source.path))[1]
    return source.bytes

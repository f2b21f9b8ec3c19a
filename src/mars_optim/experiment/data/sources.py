"""Sources of data, and the pieces of them that become one shard each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from ...errors import UserError, check_text
from ..tasks.text import SUFFIXES
from .formats import bin_tokens, hub_splits, is_saved, open_parquet
from .validation_split import Split, split_of

Kind = Literal["text", "jsonl", "parquet", "hub", "bin"]

_KINDS: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".bin": "bin",
}
_PACKED = {".gz", ".bz2"}  # read as they are
_OTHERS = {".xz", ".zst", ".zip", ".tar", ".tgz", ".7z", ".rar"}
_LEAST_PIECE, _MOST_PIECE, _PIECES = 2**20, 2**26, 64
_PROBE = 2**16


@dataclass(frozen=True, slots=True)
class Source:
    """A file of the user's, or a data set of the hub.

    Args:
        kind: how it is read.
        path: of the file; of a data set, its name or folder.
        name: in the manifest.
        split: where all of it belongs; None if each document goes by its hash.
        bytes: its size.
        units: bytes (text, jsonl), row groups (parquet), rows (hub) or tokens (bin).
        config: of a data set of the hub.
        hub_split: of a data set.
    """

    kind: Kind
    path: str
    name: str
    split: Split | None
    bytes: int
    units: int
    config: str = ""
    hub_split: str = ""

    @property
    def packed(self) -> bool:
        """Whether it is unpacked as it is read."""
        return self.kind != "hub" and Path(self.path).suffix.lower() in _PACKED

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


@dataclass(slots=True)
class Piece:
    """A part of a source, or some small text files that are read whole.

    Args:
        sources: one, or more text files.
        start: the source's first unit.
        stop: the one after the last; 0 if all is read.
        bytes: about how many of the sources, for the progress.
    """

    sources: list[Source]
    start: int
    stop: int
    bytes: int


def find_sources(
    given: Sequence[str], split: Split | None = None, config: str = ""
) -> tuple[list[Source], list[Path]]:
    """All files that the user's words name, in order.

    Args:
        given: files, folders, and "hf:NAME" for data sets of the Hugging Face hub.
        split: where all of them belong, if that is given.
        config: of the data sets of the hub.

    Returns:
        The sources, and the files of folders that are left out.

    Raises:
        UserError: if one does not exist or holds nothing that can be read.
    """
    found: list[Source] = []
    left_out: list[Path] = []
    for word in given:
        path = Path(word)
        if word.startswith("hf:") or is_saved(path):
            found += _data_set(word.removeprefix("hf:"), config, split)
        elif path.is_dir():
            files, unread = files_below(path)
            unread += [p for p in files if not _known(p)]
            inside = [_file(p, path.parent, split) for p in files if _known(p)]
            if not inside:
                more = f"; {told(unread)}" if unread else ""
                raise UserError(f"{word} holds no text, JSONL, Parquet or .bin file{more}")
            found += inside
            left_out += unread
        elif path.is_file():
            found.append(_file(path, path.parent, split))
        else:
            raise UserError(f"{word} does not exist; a data set of the hub is hf:NAME")
    return found, left_out


def check_once(sources: Sequence[Source]) -> None:
    """See that nothing is trained on twice, or trained on and validated on.

    Raises:
        UserError: naming what is given twice.
    """
    seen = set()
    for source in sources:
        key = (Path(source.path).resolve(), source.config, source.hub_split)
        if key in seen:
            raise UserError(f"{source.path} is given twice")
        seen.add(key)


def _data_set(name: str, config: str, split: Split | None) -> Iterator[Source]:
    for key, to, size, rows in hub_splits(name, config, split):
        shown = "/".join(filter(None, (f"hf:{Path(name).name}", config, key)))
        yield Source("hub", name, shown, to, size, rows, config, key)


def _known(path: Path) -> bool:
    ending, packed = _ending(path)
    return ending in {*SUFFIXES, ".ndjson"} or (not packed and ending in _KINDS)


def _ending(path: Path) -> tuple[str, bool]:
    """In lower case, without that of its packing; and whether it is packed."""
    packed = path.suffix.lower() in _PACKED
    return (Path(path.stem) if packed else path).suffix.lower(), packed


def _file(path: Path, root: Path, split: Split | None) -> Source:
    check_text(str(path), "this file's name")
    ending, packed = _ending(path)
    if ending in _OTHERS or (packed and ending in (".parquet", ".bin")):
        raise UserError(f"{path} is packed: unpack it first")
    kind = _KINDS.get(ending, "text")
    if kind == "bin" and split is None:
        split = split_of(path)
        if split is None:
            raise UserError(
                f"{path} must be called train*.bin or val*.bin, or be given after --valid"
            )
    name, size = path.relative_to(root).as_posix(), path.stat().st_size
    units = 1 if packed else size
    if kind == "parquet":
        units = open_parquet(path).num_row_groups
    elif kind == "bin":
        units = bin_tokens(path)[1]
    return Source(kind, str(path), name, split, size, units)


def files_below(root: Path) -> tuple[list[Path], list[Path]]:
    """All files in a folder and those below it, hidden ones left out, in the order of their names.

    Links to folders are followed, but for those that lead to what is read already.

    Returns:
        The files, and the links that are not followed or lead nowhere.
    """
    files: list[Path] = []
    unread: list[Path] = []
    links: list[Path] = []
    folders, seen = [root], set()
    while folders or links:
        linked = not folders
        folder = links.pop(0) if linked else folders.pop()
        real = folder.resolve()
        if real in seen or (linked and root.resolve().is_relative_to(real)):
            unread += [folder] if linked else []
            continue
        seen.add(real)
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                (links if path.is_symlink() else folders).append(path)
            else:
                (files if path.is_file() else unread).append(path)
    return sorted(files), sorted(unread)


def told(left_out: Iterable[Path], read: str = "text, JSONL, Parquet or .bin") -> str:
    """The files that are left out, in a line; empty if there are none.

    Args:
        left_out: files and links.
        read: the kinds that are not.
    """
    paths = list(left_out)
    if not paths:
        return ""
    kinds = Counter(p.suffix.lower() or "no ending" for p in paths)
    kinds_told = ", ".join(f"{n} of {kind}" for kind, n in kinds.most_common(5))
    one = "1 file or link that is" if len(paths) == 1 else f"{len(paths)} files or links that are"
    way = "; give one by its name to read it as text" if "text" in read else ""
    return f"left out {one} no {read} ({kinds_told}), such as {paths[0]}{way}"


def cut(sources: Sequence[Source]) -> list[Piece]:
    """The sources in pieces of like size, which depend on nothing but the sources."""
    total = sum(source.bytes for source in sources)
    size = min(_MOST_PIECE, max(_LEAST_PIECE, total // _PIECES))
    pieces: list[Piece] = []
    for source in sources:
        last = pieces[-1] if pieces else None
        if source.kind != "text" or source.bytes > size:
            pieces += _pieces(source, size)
        elif last and not last.stop and last.bytes + source.bytes <= size:
            last.sources.append(source)
            last.bytes += source.bytes
        else:
            pieces.append(Piece([source], 0, 0, source.bytes))
    return pieces


def _pieces(source: Source, size: int) -> Iterator[Piece]:
    per_piece = max(1, size * source.units // max(1, source.bytes))
    for start in range(0, source.units, per_piece):
        stop = min(start + per_piece, source.units)
        yield Piece([source], start, stop, source.bytes * (stop - start) // source.units)

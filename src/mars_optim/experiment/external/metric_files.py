"""Rows from files of metrics, whole or still growing: JSON lines, CSV, TensorBoard events."""

from __future__ import annotations

import csv
import glob
import io
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ...errors import UserError
from .rows import Reader, Row

CSV_ENDINGS = (".csv", ".tsv")
_SEPARATORS = ",;\t"
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz")
_OTHER = (".parquet", ".xlsx", ".xls", ".feather", ".arrow", ".pkl", ".db")


class JsonLines:
    """One JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self.lines = 0

    def rows(self, *, final: bool) -> Iterator[Row]:
        """As :meth:`Reader.rows`."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            text = file.read()
        whole, newline, rest = text.rpartition(b"\n")
        self.offset += len(whole) + len(newline)
        for line in whole.splitlines():
            self.lines += 1
            if line.strip():
                yield self._parse(line)
        if final and rest.strip():
            self.lines += 1
            try:
                row = json.loads(rest)
            except (ValueError, RecursionError):
                return  # cut short
            if isinstance(row, dict):
                yield self._parse(rest)

    def _parse(self, line: bytes) -> Row:
        place = f"{self.path}, line {self.lines}"
        try:
            row = json.loads(line, object_pairs_hook=_once)
        except _TwiceError as error:
            raise UserError(f"{place} has the key {error.args[0]!r} twice") from None
        except ValueError as error:
            raise UserError(f"{place} is not JSON: {error}") from None
        except RecursionError:
            raise UserError(f"{place} is not JSON that can be read: nested too deep") from None
        if not isinstance(row, dict):
            raise UserError(f"{place} is not a JSON object: {line[:60]!r}")
        return Row(row, place)


class _TwiceError(Exception):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        for key, value in pairs:
            if made[key] != value:
                raise _TwiceError(key)
    return made


class Csv:
    """A header and lines of numbers; an empty cell is no value.

    Args:
        path: of the file; ``.tsv`` is separated by tabs, others by what their header shows.
        used: the headings that must be there once only; None for all.
    """

    def __init__(self, path: Path, used: Collection[str] | None = None) -> None:
        self.path = path
        self.used = used
        self.seen = (-1, -1)
        self.count = 0

    def rows(self, *, final: bool) -> Iterator[Row]:
        """As :meth:`Reader.rows`."""
        stat = self.path.stat()
        if not final and self.seen == (stat.st_size, stat.st_mtime_ns):
            return
        self.seen = (stat.st_size, stat.st_mtime_ns)
        # from the beginning each time: some loggers write a new header over the old file
        text = _decoded(self.path.read_bytes())
        if not final:
            text = text[: text.rfind("\n") + 1]
        heading, *lines = _cells(self.path, text) or [(1, [])]
        header = heading[1]
        _check_headings(self.path, header, self.used)
        for number, line in lines[self.count :]:
            cells = {k: _number(v) for k, v in zip(header, line, strict=False) if v.strip()}
            yield Row(cells, f"{self.path}, line {number}")
        self.count = max(self.count, len(lines))


def is_csv(name: str | Path) -> bool:
    """Whether a file is one of comma- or tab-separated values, by its name."""
    return str(name).lower().endswith(CSV_ENDINGS)


def headings(path: Path) -> list[str]:
    """The first line of a CSV file.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:  # the second line shows how the file is separated
            start = file.readline(2**24) + file.readline(2**24)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    cells = _cells(path, _decoded(start))
    return cells[0][1] if cells else []


def _decoded(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="replace")


def _cells(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """The lines with their numbers, each cut into cells."""
    first, _, rest = text.lstrip("\n").partition("\n")
    mark = "\t" if path.suffix.lower() == ".tsv" else _separator(first, rest.partition("\n")[0])
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=mark, skipinitialspace=True)
    try:
        found = [(lines.line_num, line) for line in lines if line]
    except csv.Error as error:
        raise UserError(f"{path}, line {lines.line_num} is not CSV: {error}") from None
    if found:
        found[0] = (found[0][0], [name.strip() for name in found[0][1]])
    return found


def _separator(header: str, line: str) -> str:
    """Separator that cuts the header into several names, and the next line into as many cells."""
    counts = {m: [_count(header, m), _count(line, m)] for m in _SEPARATORS}
    fitting = [m for m, (names, cells) in counts.items() if names > 1 and names == cells]
    several = [m for m, (names, _) in counts.items() if names > 1]
    return (fitting or several or [","])[0]


def _count(line: str, mark: str) -> int:
    return len(next(csv.reader([line], delimiter=mark, skipinitialspace=True), []))


def _check_headings(path: Path, header: list[str], used: Collection[str] | None) -> None:
    for name in dict.fromkeys(header):
        if name and header.count(name) > 1 and (used is None or name in used):
            raise UserError(
                f"{path} has {header.count(name)} columns headed {name!r}: rename or remove "
                "all but one"
            )


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def reader_of(path: Path, used: Collection[str] | None = None) -> Reader:
    """The reader for a file, by its name: ``*tfevents*``, ``*.csv``, ``*.tsv``, else JSON lines.

    Raises:
        UserError: for a file that is known to be something else.
    """
    ending = path.suffix.lower()
    if ending in _PACKED:
        raise UserError(f"{path} is packed: unpack it first")
    if ending in _OTHER:
        raise UserError(f"{path} is neither JSONL, CSV nor TensorBoard events: export it as CSV")
    if "tfevents" in path.name:
        from .events import Events

        return Events(path)
    return Csv(path, used) if is_csv(path) else JsonLines(path)


class Tail:
    """The rows of all files in a folder that match a pattern, as they come.

    A tag of TensorBoard's is also known by its folder and name, such as ``loss_test/loss``.

    Args:
        folder: where they lie.
        pattern: name of a file in it, or a glob.
        used: names of the columns that are read; each must come from one place.
    """

    def __init__(self, folder: Path, pattern: str, used: Collection[str] = ()) -> None:
        self.folder = folder
        self.pattern = pattern
        self.used = frozenset(used)
        self.readers: dict[Path, Reader] = {}
        self.homes: dict[str, str] = {}  # of the columns that are used

    def rows(self, *, final: bool = False) -> Iterator[Row]:
        """Rows since the last call, file by file.

        Raises:
            UserError: if a file cannot be read, or a column that is used is in two places.
        """
        for name in sorted(glob.glob(self.pattern, root_dir=self.folder, recursive=True)):
            path = self.folder / name
            if path not in self.readers and path.is_file():
                self.readers[path] = reader_of(path, self.used or None)
        for path, reader in self.readers.items():
            place = path.relative_to(self.folder)
            events = "tfevents" in path.name
            home = (place.parent if events else place).as_posix()
            for row in reader.rows(final=final):
                if events and home != ".":
                    row.update({f"{home}/{k}": row[k] for k in list(row) if k not in _OF_EVENTS})
                self._check_home(row, home, events)
                yield row

    def _check_home(self, row: Row, home: str, events: bool) -> None:
        for name in self.used & row.keys():
            if row[name] is None or (first := self.homes.setdefault(name, home)) == home:
                continue
            way = "make task.metrics or the pattern name one of them"
            if events:
                known = [f"{at}/{name}" for at in (first, home) if at != "."]
                way = "name one by its folder, such as " + " or ".join(map(repr, known))
            raise UserError(f"{self.folder} has {name!r} in two places, {first} and {home}: {way}")


_OF_EVENTS = frozenset({"step", "wall_time"})


def read_rows(path: Path, used: Collection[str] = ()) -> list[Row]:
    """All rows of a file; of a folder, those of its TensorBoard event files.

    Args:
        path: of the file or folder.
        used: names of the columns that are read; each must come from one place.

    Raises:
        UserError: naming the file, if it cannot be read, is cut short or says two things.
    """
    if path.is_dir():
        tail = Tail(path, "**/*tfevents*", used)
    else:
        tail = Tail(path.parent, glob.escape(path.name), used)
    try:
        rows = list(tail.rows(final=True))
        for reader in tail.readers.values():
            if damage := getattr(reader, "damage", ""):
                raise UserError(f"{reader.path} {damage}: copy it again, or leave the run out")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    return rows

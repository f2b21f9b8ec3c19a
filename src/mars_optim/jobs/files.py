"""Rows from files of metrics, whole or still growing: JSON lines, CSV, TensorBoard events."""

from __future__ import annotations

import csv
import glob
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from ..records import UserError

Row = dict[str, Any]


class Reader(Protocol):
    """A file that is read as it grows."""

    def rows(self, *, final: bool) -> Iterator[Row]:
        """Rows since the last call; ``final``: a last line without an end counts too."""
        ...


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
            try:
                row = json.loads(rest)
            except ValueError:
                return  # cut short
            if isinstance(row, dict):
                yield row

    def _parse(self, line: bytes) -> Row:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{self.path}, line {self.lines} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"{self.path}, line {self.lines} is no JSON object: {line[:60]!r}")
        return row


class Csv:
    """A header and lines of numbers; an empty cell is no value."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen = (-1, -1)
        self.count = 0

    def rows(self, *, final: bool) -> Iterator[Row]:
        """As :meth:`Reader.rows`."""
        stat = self.path.stat()
        if not final and self.seen == (stat.st_size, stat.st_mtime_ns):
            return
        self.seen = (stat.st_size, stat.st_mtime_ns)
        # from the beginning each time: some loggers write a new header over the old file
        text = self.path.read_text(encoding="utf-8-sig", errors="replace")
        if not final:
            text = text[: text.rfind("\n") + 1]
        header, *lines = list(csv.reader(text.splitlines())) or [[]]
        for line in lines[self.count :]:
            yield {k: _number(v) for k, v in zip(header, line, strict=False) if v.strip()}
        self.count = max(self.count, len(lines))


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


class Events:
    """The scalars of a TensorBoard event file: one row each, with ``step`` and ``wall_time``."""

    def __init__(self, path: Path) -> None:
        try:
            from tensorboard.backend.event_processing import event_file_loader
        except ImportError:
            raise UserError(
                f"{path}: TensorBoard's event files need one more package: pip install "
                "'mars-optim[tensorboard]'"
            ) from None
        self.loader = event_file_loader.EventFileLoader(str(path))

    def rows(self, *, final: bool) -> Iterator[Row]:
        """As :meth:`Reader.rows`; an event is written whole."""
        from tensorboard.util import tensor_util

        for event in self.loader.Load():
            for value in event.summary.value:
                content = tensor_util.make_ndarray(value.tensor)
                if content.size == 1 and content.dtype.kind in "fiu":
                    yield {
                        "step": event.step,
                        "wall_time": event.wall_time,
                        value.tag: float(content.item()),
                    }


def reader_of(path: Path) -> Reader:
    """The reader for a file, by its name: ``*tfevents*``, ``*.csv``, else JSON lines."""
    if "tfevents" in path.name:
        return Events(path)
    return Csv(path) if path.suffix.lower() == ".csv" else JsonLines(path)


class Tail:
    """The rows of all files in a folder that match a pattern, as they come.

    Args:
        folder: where they lie.
        pattern: name of a file in it, or a glob.
    """

    def __init__(self, folder: Path, pattern: str) -> None:
        self.folder = folder
        self.pattern = pattern
        self.readers: dict[Path, Reader] = {}

    def rows(self, *, final: bool = False) -> Iterator[Row]:
        """Rows since the last call, file by file."""
        for name in sorted(glob.glob(self.pattern, root_dir=self.folder, recursive=True)):
            path = self.folder / name
            if path not in self.readers and path.is_file():
                self.readers[path] = reader_of(path)
        for reader in self.readers.values():
            yield from reader.rows(final=final)


def read_rows(path: Path) -> list[Row]:
    """All rows of a file; of a folder, those of its TensorBoard event files.

    Raises:
        UserError: naming the file, if it cannot be read.
    """
    tail = (
        Tail(path, "**/*tfevents*") if path.is_dir() else Tail(path.parent, glob.escape(path.name))
    )
    try:
        return list(tail.rows(final=True))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None

"""Pieces of sources as documents, read one after the other in bounded memory.

``datasets`` reads the hub's data sets only. Its readers of files take a line or a row group of any
size into memory, make dates out of text that looks like one and nothing out of a missing key, and
do not name the line that is wrong.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import UserError
from .formats import (
    ALWAYS,
    MOST_TIMES,
    check_parquet,
    load_data_set,
    open_parquet,
    too_large,
)
from .sources import Piece, Source
from .validation_split import Split

Document = tuple[str, bool, Split | None]
"""Text, whether a document ends with it, and its split, if that is given."""

# a longer text file is cut at ends of lines into parts of about this size: 512 at least, if it is
# long enough, so that a share of them is near that share of the text
_LEAST_PART, _MOST_PART, _PARTS = 2**12, 2**16, 512
_LONGEST_PART = 2**20  # where there are none
_LONGEST_ROW = 2**26
_BATCH = 256
_BATCH_BYTES = 2**28  # that a batch of the longest text of a Parquet file may have


def documents(piece: Piece, column: str) -> Iterator[Document]:
    """The documents of a piece, in order; empty ones are left out.

    Args:
        piece: to read.
        column: of JSONL, Parquet and data sets that holds the text.

    Raises:
        UserError: naming the source and the place that cannot be read.
    """
    for source in piece.sources:
        if source.kind == "text":
            texts = _text(source, piece)
        else:
            read = {"jsonl": _jsonl, "parquet": _parquet, "hub": _hub}[source.kind]
            texts = ((text, True) for text in read(source, piece, column))
        for text, ends in texts:
            if text:
                yield text, ends, source.split


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[Any]:
    """A text file, unpacked as it is read if its ending says that it is packed."""
    path = Path(source.path)
    if not source.packed:
        with path.open("rb") as file:
            yield file
        return
    try:
        with (gzip if path.suffix.lower() == ".gz" else bz2).open(path, "rb") as file:
            yield file
    except (EOFError, OSError, zlib.error) as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise UserError(f"{path} is damaged: {error}; copy it again") from None


def _lines(source: Source, piece: Piece, longest: int) -> Iterator[tuple[bytes, int, bool]]:
    """Lines that begin in the piece; of longer ones, their parts.

    Yields:
        The line, the byte at which it ends, and whether it is the file's last.
    """
    stop = math.inf if source.packed else piece.stop or source.bytes
    most = max(ALWAYS, MOST_TIMES * source.bytes) if source.packed else math.inf
    with _opened(source) as file:
        if piece.start > 0:
            file.seek(piece.start - 1)
            while (line := file.readline(longest)) and not line.endswith(b"\n"):
                pass
        end, whole = file.tell(), True
        while (end < stop or not whole) and (line := file.readline(longest)):
            end, whole = file.tell(), line.endswith(b"\n")
            if end >= most:
                raise too_large(source.path)
            yield line, end, not file.peek(1)


def _text(source: Source, piece: Piece) -> Iterator[tuple[str, bool]]:
    size = min(_MOST_PART, max(_LEAST_PART, source.bytes // _PARTS))
    part, end, last = bytearray(), 0, True
    for line, end, last in _lines(source, piece, _LONGEST_PART):
        part += line
        if len(part) >= _LONGEST_PART or (len(part) >= size and line.endswith(b"\n")):
            text, length = _decoded(part, source, end, final=False)
            del part[:length]
            yield text, last and not part
    if part:
        yield _decoded(part, source, end, final=True)[0], last


def _decoded(text: bytearray, source: Source, end: int, final: bool) -> tuple[str, int]:
    """The text, and the bytes taken: a character that its end cuts in two may be left."""
    try:
        return codecs.utf_8_decode(text, "strict", final)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{source.path} is not UTF-8 near byte {end - len(text) + error.start:,}; convert it "
            "first"
        ) from None


def _jsonl(source: Source, piece: Piece, column: str) -> Iterator[str]:
    for line, end, _ in _lines(source, piece, _LONGEST_ROW):
        if line.isspace():
            continue
        try:
            text = _text_of_line(line, column)
        except UserError as error:
            raise UserError(f"{_place(source, end)}{error}") from None
        yield text


def _text_of_line(line: bytes, column: str) -> str:
    if len(line) >= _LONGEST_ROW:
        raise UserError(f" is longer than {_LONGEST_ROW >> 20} MiB")
    try:
        row = json.loads(line)
    except RecursionError:
        raise UserError(" is nested too deep") from None
    except ValueError as error:
        raise UserError(f" is not JSON: {error}") from None
    if not isinstance(row, dict) or column not in row:
        has = f"the keys {', '.join(row)}" if isinstance(row, dict) else "no keys"
        raise UserError(f" has {has}, not {column!r}: name the key of the text by --text")
    return _text_of(row[column], "", column)


def _place(source: Source, end: int) -> str:
    """Where a line is, from the byte at which it ends."""
    number, left, data = 0, end, b""
    with _opened(source) as file:
        while left > 0 and (data := file.read(min(left, 2**20))):
            number += data.count(b"\n")
            left -= len(data)
    number += not data.endswith(b"\n")
    return f"{source.path}: the line that ends at byte {end:,} (line {number:,})"


def _parquet(source: Source, piece: Piece, column: str) -> Iterator[str]:
    file = open_parquet(Path(source.path))
    _check_column(column, file.schema_arrow.names, source.path)
    groups = list(range(piece.start, piece.stop))
    longest, most = check_parquet(file, Path(source.path), groups, column)
    rows = max(1, min(_BATCH, _BATCH_BYTES // max(1, longest)))
    total = 0
    try:
        for batch in file.iter_batches(batch_size=rows, row_groups=groups, columns=[column]):
            for cell in batch.column(0):
                text = _text_of(cell.as_py(), source.path, column)
                total += len(text)
                if total > most:  # one text many times
                    raise too_large(f"{source.path}, column {column!r}")
                yield text
    except (OSError, UnicodeDecodeError) as error:  # pyarrow's own errors are OSErrors, too
        raise UserError(f"{source.path} cannot be read: {error}; copy it again") from None


def _hub(source: Source, piece: Piece, column: str) -> Iterator[str]:
    data = load_data_set(source.path, source.config)[source.hub_split]
    _check_column(column, data.column_names, f"hf:{source.path}")
    for row in data.select_columns([column]).select(range(piece.start, piece.stop)):
        yield _text_of(row[column], source.path, column)


def _check_column(column: str, names: list[str], where: str) -> None:
    if column not in names:
        raise UserError(
            f"{where} has no column {column!r}; it has {', '.join(names)}: name the column of "
            "the text by --text"
        )


def _text_of(cell: Any, place: str, column: str) -> str:
    if cell is None:
        return ""
    if not isinstance(cell, str):
        raise UserError(f"{place}: {column!r} holds {type(cell).__name__}, not text")
    if len(cell) > _LONGEST_ROW:
        raise UserError(f"{place}: a text in {column!r} is longer than {_LONGEST_ROW >> 20} MiB")
    try:
        cell.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"{place}: {column!r} holds half of a surrogate pair ({cell[error.start]!a}), "
            "which is not text: fix or remove it"
        ) from None
    return cell

"""Pieces of sources as documents, read one after the other in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ..records import UserError
from .parquet import open_parquet
from .sources import Piece, Source
from .split import Split

Document = tuple[str, bool, Split | None]
"""Text, whether a document ends with it, and its split, if that is given."""

# a longer text file is cut at ends of lines into parts of about this size: 512 at least, if it is
# long enough, so that a share of them is near that share of the text
_LEAST_PART, _MOST_PART, _PARTS = 2**12, 2**16, 512
_LONGEST_PART = 2**20  # where there are none
_LONGEST_ROW = 2**28
_BATCH = 256


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
            rows = {"jsonl": _jsonl, "parquet": _parquet, "hub": _hub}[source.kind]
            texts = ((text, True) for text in rows(source, piece, column))
        for text, ends in texts:
            if text:
                yield text, ends, source.split


def _text(source: Source, piece: Piece) -> Iterator[tuple[str, bool]]:
    stop = piece.stop or source.bytes
    size = min(_MOST_PART, max(_LEAST_PART, source.bytes // _PARTS))
    part = bytearray()
    with Path(source.path).open("rb") as file:
        for chunk in _lines(file, piece.start, stop, _LONGEST_PART):
            part += chunk
            if len(part) >= _LONGEST_PART or (len(part) >= size and part.endswith(b"\n")):
                end = _whole_characters(part)
                head, part = part[:end], part[end:]
                last = not part and file.tell() >= source.bytes
                yield _decoded(bytes(head), source, file.tell()), last
        if part:
            yield _decoded(bytes(part), source, file.tell()), file.tell() >= source.bytes


def _lines(file: BinaryIO, start: int, stop: int, longest: int) -> Iterator[bytes]:
    """Lines that begin from byte ``start`` to before ``stop``; of longer ones, their parts."""
    if start > 0:
        file.seek(start - 1)
        while (skipped := file.readline(longest)) and not skipped.endswith(b"\n"):
            pass
    while file.tell() < stop:
        line = file.readline(longest)
        while line and not line.endswith(b"\n"):
            more = file.readline(longest)
            yield line
            line = more
        if line:
            yield line


def _whole_characters(text: bytearray) -> int:
    """Length of ``text`` without a UTF-8 character that its end cuts in two."""
    for back in range(1, min(4, len(text)) + 1):
        byte = text[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(text) - back if length > back else len(text)
        if byte < 0x80:
            break
    return len(text)


def _decoded(text: bytes, source: Source, end: int) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{source.path} is not UTF-8 near byte {end - len(text) + error.start:,}; convert it "
            "first"
        ) from None


def _jsonl(source: Source, piece: Piece, column: str) -> Iterator[str]:
    with Path(source.path).open("rb") as file:
        end = piece.start
        for line in _lines(file, piece.start, piece.stop, _LONGEST_ROW):
            end = file.tell()
            if line.isspace():
                continue
            place = f"{source.path}: the line that ends at byte {end:,}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{place} is no JSON: {error}") from None
            if not isinstance(row, dict) or column not in row:
                has = f"the keys {', '.join(row)}" if isinstance(row, dict) else "no keys"
                raise UserError(
                    f"{place} has no key {column!r} but {has}; name the text's with --text"
                )
            yield _text_of(row[column], place, column)


def _parquet(source: Source, piece: Piece, column: str) -> Iterator[str]:
    file = open_parquet(Path(source.path))
    names = file.schema_arrow.names
    if column not in names:
        raise UserError(
            f"{source.path} has no column {column!r} but {', '.join(names)}; name the text's with "
            "--text"
        )
    groups = list(range(piece.start, piece.stop))
    batches = file.iter_batches(batch_size=_BATCH, row_groups=groups, columns=[column])
    for batch in batches:
        for cell in batch.column(0).to_pylist():
            yield _text_of(cell, source.path, column)


def _hub(source: Source, piece: Piece, column: str) -> Iterator[str]:
    from .hub import texts

    for cell in texts(
        source.path, source.config, source.hub_split, piece.start, piece.stop, column
    ):
        yield _text_of(cell, source.path, column)


def _text_of(cell: Any, place: str, column: str) -> str:
    if cell is None:
        return ""
    if not isinstance(cell, str):
        raise UserError(f"{place}: {column!r} holds {type(cell).__name__}, not text")
    return cell

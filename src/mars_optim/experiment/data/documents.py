"""Pieces of sources as documents, read one after the other in bounded memory."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import UserError
from .packed import opened, too_large
from .parquet import check_parquet, open_parquet
from .source import Source
from .sources import Piece
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
            rows = {"jsonl": _jsonl, "parquet": _parquet, "hub": _hub}[source.kind]
            texts = ((text, True) for text in rows(source, piece, column))
        for text, ends in texts:
            if text:
                yield text, ends, source.split


def _text(source: Source, piece: Piece) -> Iterator[tuple[str, bool]]:
    stop: float = math.inf if source.packed else piece.stop or source.bytes
    size = min(_MOST_PART, max(_LEAST_PART, source.bytes // _PARTS))
    part = bytearray()
    with opened(Path(source.path)) as file:
        for chunk in _lines(file, piece.start, stop, _LONGEST_PART):
            part += chunk
            if len(part) >= _LONGEST_PART or (len(part) >= size and part.endswith(b"\n")):
                end = _whole_characters(part)
                head, part = part[:end], part[end:]
                yield _decoded(bytes(head), source, file.tell()), not part and _at_end(file)
        if part:
            yield _decoded(bytes(part), source, file.tell()), _at_end(file)


def _at_end(file: Any) -> bool:
    return not file.peek(1)


def _lines(file: BinaryIO, start: int, stop: float, longest: int) -> Iterator[bytes]:
    """Lines that begin from byte ``start`` to before ``stop``; of longer ones, their parts."""
    if start > 0:
        file.seek(start - 1)
        while (skipped := file.readline(longest)) and not skipped.endswith(b"\n"):
            pass
    while file.tell() < stop:
        line = file.readline(longest)
        if not line:
            return
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
    stop = math.inf if source.packed else piece.stop
    with opened(Path(source.path)) as file:
        for line in _lines(file, piece.start, stop, _LONGEST_ROW):
            if line.isspace():
                continue
            if len(line) >= _LONGEST_ROW:
                raise UserError(
                    f"{_place(source, file.tell())} is longer than {_LONGEST_ROW >> 20} MiB"
                )
            try:
                row = json.loads(line)
                text = _text_of(row[column], "", column)
            except RecursionError:
                raise UserError(f"{_place(source, file.tell())} is nested too deep") from None
            except ValueError as error:
                raise UserError(f"{_place(source, file.tell())} is no JSON: {error}") from None
            except (KeyError, TypeError, IndexError):
                has = f"the keys {', '.join(row)}" if isinstance(row, dict) else "no keys"
                raise UserError(
                    f"{_place(source, file.tell())} has no key {column!r} but {has}; name the "
                    "text's with --text"
                ) from None
            except UserError as error:
                raise UserError(f"{_place(source, file.tell())}{error}") from None
            yield text


def _place(source: Source, end: int) -> str:
    """Where a line is, from the byte at which it ends."""
    number = 0
    with opened(Path(source.path)) as file:
        left = end
        while left > 0 and (data := file.read(min(left, 2**20))):
            number += data.count(b"\n")
            left -= len(data)
        number += not data.endswith(b"\n")
    return f"{source.path}: the line that ends at byte {end:,} (line {number:,})"


def _parquet(source: Source, piece: Piece, column: str) -> Iterator[str]:
    file = open_parquet(Path(source.path))
    names = file.schema_arrow.names
    if column not in names:
        raise UserError(
            f"{source.path} has no column {column!r} but {', '.join(names)}; name the text's with "
            "--text"
        )
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
    if len(cell) > _LONGEST_ROW:
        raise UserError(f"{place}: a text in {column!r} is longer than {_LONGEST_ROW >> 20} MiB")
    try:
        cell.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"{place}: {column!r} holds half of a surrogate pair ({cell[error.start]!a}), which is "
            "no text: mend or remove it"
        ) from None
    return cell

"""One piece of the sources to its shards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import UserError
from ..tasks.prepared import PARTS, write_whole
from .documents import documents
from .formats import read_bin
from .prepared_files import HashedFile
from .sources import Piece
from .tokenizer import Tokenizer
from .validation_split import Split, split_by_hash

_BATCH_BYTES = 2**21  # of text encoded at a time, in all threads together
_BIN_TOKENS = 2**20


Record = dict[Split, dict[str, Any]]
"""Record of a piece, by split: tokens, documents (or parts of a long text file that the split
tells apart), bytes of UTF-8 (None if not known), and the shards' sizes and hashes."""


def shard_paths(out: Path, number: int) -> dict[Split, Path]:
    """Where a piece's tokens go. The small validation shards are joined at the end."""
    return {
        "train": out / f"train-{number:05}.bin",
        "valid": out / PARTS / f"valid-{number:05}.bin",
    }


def write_piece(
    out: Path, number: int, piece: Piece, tokenizer: Tokenizer, column: str, share: float
) -> Record:
    """Tokenize one piece; equal pieces give equal bytes.

    Raises:
        UserError: naming the source that cannot be read.
    """
    names: tuple[Split, ...] = ("train", "valid")
    record: Record = {s: {"tokens": 0, "documents": 0, "bytes": 0, "file": {}} for s in names}
    paths = shard_paths(out, number)
    if piece.sources[0].kind == "bin":
        chunks = _bin_chunks(piece, tokenizer)
    else:
        chunks = _text_chunks(piece, tokenizer, column, share)
    with ExitStack() as stack:
        files: dict[Split, HashedFile] = {}
        for split, tokens, texts, size in chunks:
            if split not in files:
                files[split] = stack.enter_context(HashedFile(paths[split]))
            files[split].write(tokens.astype(tokenizer.dtype).tobytes())
            count = record[split]
            count["tokens"] += len(tokens)
            count["documents"] += texts
            count["bytes"] = None if size is None else count["bytes"] + size
    for split, file in files.items():
        record[split]["file"] = file.facts
    write_whole(_record_path(out, number), json.dumps(record))
    return record


def read_record(out: Path, number: int) -> Record | None:
    """The record that :func:`write_piece` returned; None if it or its shards are missing."""
    path, shards = _record_path(out, number), shard_paths(out, number)
    if not path.exists():
        return None
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    there = all(
        shards[split].exists() and shards[split].stat().st_size == count["file"]["bytes"]
        for split, count in record.items()
        if count["tokens"]
    )
    return record if there else None


def _record_path(out: Path, number: int) -> Path:
    return out / PARTS / f"{number:05}.json"


Chunk = tuple[Split, npt.NDArray[Any], int, int | None]
"""Where it goes, tokens, documents, bytes of text."""


def _text_chunks(piece: Piece, tokenizer: Tokenizer, column: str, share: float) -> Iterator[Chunk]:
    for batch in _batches(piece, column, share):
        encoded = tokenizer.encode([text for text, *_ in batch])
        for tokens, (_, ends, split, size) in zip(encoded, batch, strict=True):
            end = np.array([tokenizer.end], dtype=tokens.dtype)  # of their type: no wider copy
            yield split, np.append(tokens, end) if ends else tokens, 1, size


def _batches(
    piece: Piece, column: str, share: float
) -> Iterator[list[tuple[str, bool, Split, int]]]:
    batch, total = [], 0
    for text, ends, split in documents(piece, column):
        data = text.encode()
        batch.append((text, ends, split or split_by_hash(data, share), len(data)))
        total += len(data)
        if total >= _BATCH_BYTES:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def _bin_chunks(piece: Piece, tokenizer: Tokenizer) -> Iterator[Chunk]:
    source = piece.sources[0]
    assert source.split is not None
    lengths = tokenizer.lengths()
    for start in range(piece.start, piece.stop, _BIN_TOKENS):
        tokens = read_bin(Path(source.path), start, min(start + _BIN_TOKENS, piece.stop))
        highest = int(tokens.max(initial=0))
        if highest >= tokenizer.vocabulary:
            raise UserError(
                f"{source.path} does not match the tokenizer: it holds token {highest:,}, and "
                f"the tokenizer has {tokenizer.vocabulary:,} tokens"
            )
        ends = int((tokens == tokenizer.end).sum())
        yield source.split, tokens, ends, None if lengths is None else int(lengths[tokens].sum())

"""One piece of the sources to its shards: what a process does."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import UserError
from ..tasks.prepared import PARTS, write_whole
from .bins import read_bin
from .documents import documents
from .prepared_files import HashedFile
from .sources import Piece
from .tokenizer import BPE, Bytes, Encoder
from .validation_split import Split, split_by_hash

_BATCH_BYTES = 2**20  # of text encoded at a time
_BIN_TOKENS = 2**20


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """How all pieces are turned into tokens.

    Args:
        out: the folder.
        dtype: of the tokens on disk.
        tokenizer: file of the tokenizer; None for bytes, or for token files without one.
        column: of the text.
        share: of the documents that are for validation.
        end: the token after a document.
        vocabulary: number of different tokens.
    """

    out: Path
    dtype: str
    tokenizer: Path | None
    column: str
    share: float
    end: int
    vocabulary: int


@dataclass(slots=True)
class Counts:
    """What is in a shard.

    Args:
        tokens: number of them.
        documents: of a long text file, parts that the split tells apart.
        bytes: of their text in UTF-8; None if not known.
        file: its size and hash, as the manifest has them; empty if it has no token.
    """

    tokens: int = 0
    documents: int = 0
    bytes: int | None = 0
    file: dict[str, Any] = field(default_factory=dict)


def shard_paths(out: Path, number: int) -> dict[Split, Path]:
    """Where a piece's tokens go. The small validation shards are joined at the end."""
    return {
        "train": out / f"train-{number:05}.bin",
        "valid": out / PARTS / f"valid-{number:05}.bin",
    }


def record_path(out: Path, number: int) -> Path:
    """The file that says that a piece is done."""
    return out / PARTS / f"{number:05}.json"


def write_piece(settings: ShardSettings, number: int, piece: Piece) -> int:
    """Tokenize one piece; equal pieces give equal bytes. Returns its number.

    Raises:
        UserError: naming the source that cannot be read.
    """
    counts: dict[Split, Counts] = {"train": Counts(), "valid": Counts()}
    paths = shard_paths(settings.out, number)
    chunks = _bin_chunks if piece.sources[0].kind == "bin" else _text_chunks
    with ExitStack() as stack:
        files: dict[Split, HashedFile] = {}
        for split, tokens, number_of, size in chunks(settings, piece):
            if split not in files:
                files[split] = stack.enter_context(HashedFile(paths[split]))
            files[split].write(tokens.astype(settings.dtype).tobytes())
            count = counts[split]
            count.tokens += len(tokens)
            count.documents += number_of
            known = count.bytes is not None and size is not None
            count.bytes = count.bytes + size if known else None  # type: ignore[operator]
    for split, file in files.items():
        counts[split].file = file.facts
    facts = {split: asdict(count) for split, count in counts.items()}
    write_whole(record_path(settings.out, number), json.dumps(facts))
    return number


def read_record(out: Path, number: int) -> dict[Split, Counts]:
    """What :func:`write_piece` said of a piece."""
    facts = json.loads(record_path(out, number).read_text(encoding="utf-8"))
    return {split: Counts(**count) for split, count in facts.items()}


def is_done(out: Path, number: int) -> bool:
    """Whether a piece's record and shards are there."""
    if not record_path(out, number).exists():
        return False
    counts, paths = read_record(out, number), shard_paths(out, number)
    return all(
        paths[split].exists() and paths[split].stat().st_size == count.file["bytes"]
        for split, count in counts.items()
        if count.tokens
    )


Chunk = tuple[Split, npt.NDArray[Any], int, int | None]
"""Where it goes, tokens, documents, bytes of text."""


def _text_chunks(settings: ShardSettings, piece: Piece) -> Iterator[Chunk]:
    encoder = load_encoder(settings.tokenizer)
    for batch in _batches(settings, piece):
        encoded = encoder.encode([text for text, *_ in batch])
        for tokens, (_, ends, split, size) in zip(encoded, batch, strict=True):
            end = np.array([encoder.end], dtype=tokens.dtype)  # of their type: no wider copy
            row = np.append(tokens, end) if ends else tokens
            yield split, row, 1, size


def _batches(settings: ShardSettings, piece: Piece) -> Iterator[list[tuple[str, bool, Split, int]]]:
    batch, total = [], 0
    for text, ends, split in documents(piece, settings.column):
        data = text.encode()
        batch.append((text, ends, split or split_by_hash(data, settings.share), len(data)))
        total += len(data)
        if total >= _BATCH_BYTES:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def _bin_chunks(settings: ShardSettings, piece: Piece) -> Iterator[Chunk]:
    source = piece.sources[0]
    assert source.split is not None
    lengths = BPE(settings.tokenizer).lengths() if settings.tokenizer else None
    for start in range(piece.start, piece.stop, _BIN_TOKENS):
        tokens = read_bin(Path(source.path), start, min(start + _BIN_TOKENS, piece.stop))
        highest = int(tokens.max(initial=0))
        if highest >= settings.vocabulary:
            raise UserError(
                f"{source.path} does not match the tokenizer: it holds token {highest:,}, of which "
                f"there are {settings.vocabulary:,}"
            )
        ends = int((tokens == settings.end).sum())
        yield source.split, tokens, ends, None if lengths is None else int(lengths[tokens].sum())


@functools.lru_cache(maxsize=1)
def load_encoder(tokenizer: Path | None) -> Encoder:
    """The tokenizer of this process."""
    return BPE(tokenizer) if tokenizer else Bytes()

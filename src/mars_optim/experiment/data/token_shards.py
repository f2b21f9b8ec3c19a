"""Text, or tokens of others -> shards of tokens with a manifest, resumable at any moment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..tasks.prepared import write_whole
from .documents import documents
from .prepared_files import HashedFile, prepare_folder
from .shards import Record, read_record, shard_paths, write_piece
from .sources import Piece, Source, check_once, cut
from .tokenizer import (
    BYTES,
    GPT2,
    LEAST_VOCABULARY,
    MOST_VOCABULARY,
    TOKENIZER,
    Tokenizer,
    bpe,
    read_tokenizer,
    train_tokenizer,
)
from .validation_split import Split, split_by_hash

_SAMPLE = 2**26  # characters that our own tokenizer learns from
VALID = "valid.bin"
_SIDES: dict[Split, tuple[str, str]] = {
    "train": ("training", "lower --share"),
    "valid": ("validation", "raise --share, or give --valid FILE"),
}

Progress = Callable[[str, float, float], None]
"""Called with the current step, its bytes done, and its bytes in all, of the sources."""


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """How text becomes tokens.

    Args:
        tokenizer: a tokenizer.json or a folder, "bytes", or "" for a byte-level BPE of our own.
        vocabulary: of our own.
        column: of JSONL, Parquet and data sets that holds the text.
        share: of the documents that are for validation, where sources do not say.
    """

    tokenizer: str = ""
    vocabulary: int = 4096
    column: str = "text"
    share: float = 0.05


def prepare_tokens(
    sources: Sequence[Source],
    out: Path,
    options: TokenOptions,
    workers: int = 1,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Write token shards and their manifest into ``out``.

    The pieces into which the sources are cut depend on nothing but the sources, so neither the
    number of threads (``workers``, if the tokenizer has not begun in this process) nor being killed
    and started again changes a byte. ``progress`` is told how far it is.

    Returns:
        The manifest.

    Raises:
        UserError: if the sources cannot be read, or ``out`` holds something else.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if workers > 1 else "false"
    os.environ["RAYON_NUM_THREADS"] = str(workers)
    _check(sources, options)
    given, word = _given_tokenizer(sources, options)
    asked = {
        "sources": [source.description for source in sources],
        "tokenizer": word,
        "column": options.column,
        "share": options.share,
    }

    def work() -> dict[str, Any]:
        pieces = cut(sources)
        tokenizer = given or _own_tokenizer(out, pieces, options, progress)
        if tokenizer.text:
            write_whole(out / TOKENIZER, tokenizer.text)
        records: list[Record] = []
        ready, total = 0, sum(piece.bytes for piece in pieces)
        for number, piece in enumerate(pieces):
            record = read_record(out, number)
            if record is None:
                progress("tokens", ready, total)
                record = write_piece(out, number, piece, tokenizer, options.column, options.share)
            records.append(record)
            ready += piece.bytes
        progress("tokens", total, total)
        _check_tokens(records, sources)
        return _facts(out, tokenizer, records)

    return prepare_folder(out, "tokens", asked, work)


def _check(sources: Sequence[Source], options: TokenOptions) -> None:
    if not sources:
        raise UserError("give at least one source: a file, a folder, or hf:NAME")
    check_once(sources)
    if not 0 <= options.share < 1:
        raise UserError(f"--share {options.share:g} must be at least 0 and below 1")
    bins = [source.kind == "bin" for source in sources]
    if any(bins) and not all(bins):
        raise UserError(
            "token files (.bin) and text cannot be prepared together: run `mars prepare` for each"
        )
    if options.tokenizer == "bytes" and any(bins):
        raise UserError(
            "--tokenizer bytes cannot be combined with .bin files, which already hold "
            "tokens: leave it out"
        )


def _given_tokenizer(
    sources: Sequence[Source], options: TokenOptions
) -> tuple[Tokenizer | None, str]:
    """The tokenizer, None if it must be learnt from the text, and its name."""
    if options.tokenizer == "bytes":
        return BYTES, "bytes"
    if options.tokenizer:
        tokenizer = read_tokenizer(options.tokenizer)
        return tokenizer, _hash_of(tokenizer.text)
    if sources[0].kind == "bin":
        return GPT2, "gpt2, not checked"
    if not LEAST_VOCABULARY <= options.vocabulary <= MOST_VOCABULARY:
        raise UserError(
            f"--vocabulary {options.vocabulary} must be from {LEAST_VOCABULARY} (all bytes "
            f"and the end of a document) to {MOST_VOCABULARY}"
        )
    return None, f"trained, {options.vocabulary}"


def _own_tokenizer(
    out: Path, pieces: Sequence[Piece], options: TokenOptions, progress: Progress
) -> Tokenizer:
    path = out / TOKENIZER
    if path.exists():
        return bpe(path.read_text(encoding="utf-8"), path)
    progress("tokenizer", 0, 1)
    sample = _sample(pieces, options.column, options.share)
    return bpe(train_tokenizer(sample, options.vocabulary), path)


def _sample(pieces: Sequence[Piece], column: str, share: float) -> Iterator[str]:
    """Training documents from all over the sources, the same every time."""
    each = max(2**16, _SAMPLE // len(pieces))
    for piece in pieces:
        taken = 0
        for text, _, split in documents(piece, column):
            if (split or split_by_hash(text.encode(), share)) == "train":
                yield text
                taken += len(text)
                if taken >= each:
                    break


def _check_tokens(records: Sequence[Record], sources: Sequence[Source]) -> None:
    empty = [side for side in _SIDES if not any(record[side]["tokens"] for record in records)]
    if len(empty) == len(_SIDES):
        names = ", ".join(source.path for source in sources[:3]) + " ..." * (len(sources) > 3)
        raise UserError(f"the sources hold no text, only empty documents: {names}")
    for side in empty:
        what, way = _SIDES[side]
        raise UserError(f"no document is left for {what}: {way} (into a new folder)")


def _facts(out: Path, tokenizer: Tokenizer, records: Sequence[Record]) -> dict[str, Any]:
    """The manifest's account of all shards; those for validation become one."""
    files = {
        shard_paths(out, i)["train"].name: record["train"]["file"]
        | {"tokens": record["train"]["tokens"]}
        for i, record in enumerate(records)
        if record["train"]["tokens"]
    }
    names = {"train": list(files), "valid": [VALID]}
    splits = {
        side: {"files": names[side], **_sum([record[side] for record in records])}
        for side in _SIDES
    }
    files[VALID] = _join_valid(out, len(records)) | {"tokens": splits["valid"]["tokens"]}
    known: dict[str, Any] = {
        "file": TOKENIZER if tokenizer.text else None,
        "vocabulary": tokenizer.vocabulary,
        "end": tokenizer.end,
    }
    if tokenizer.text:
        known["sha256"] = _hash_of(tokenizer.text)
        files[TOKENIZER] = {"bytes": len(tokenizer.text.encode()), "sha256": known["sha256"]}
    return {"dtype": tokenizer.dtype, "tokenizer": known, "splits": splits, "files": files}


def _join_valid(out: Path, count: int) -> dict[str, Any]:
    with HashedFile(out / VALID) as joined:
        for path in (shard_paths(out, number)["valid"] for number in range(count)):
            if path.exists():
                with path.open("rb") as part:
                    shutil.copyfileobj(part, joined, 2**20)
    return joined.facts


def _sum(counts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    sizes = [count["bytes"] for count in counts]
    return {
        "tokens": sum(count["tokens"] for count in counts),
        "documents": sum(count["documents"] for count in counts),
        "bytes": None if None in sizes else sum(sizes),
    }


def _hash_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()

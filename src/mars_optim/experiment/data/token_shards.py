"""Text, or tokens of others -> shards of tokens with a manifest, resumable at any moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..records.lock import folder_lock
from ..tasks.prepared import write_whole
from .documents import documents
from .prepared_files import HashedFile, begin, clear, finish, finished
from .process_pool import write_pieces
from .shards import Counts, ShardSettings, is_done, read_record, shard_paths
from .source import Source
from .sources import Piece, check_once, cut
from .tokenizer import (
    BPE,
    TOKENIZER,
    Bytes,
    check_vocabulary,
    hash_of,
    read_tokenizer,
    token_type,
    train_tokenizer,
)
from .validation_split import Split, split_by_hash

_SAMPLE = 2**26  # characters that our own tokenizer learns from
_WORTH_A_PROCESS = 2**23  # bytes of sources
_GPT2 = 50257  # tokens, the last of which ends a document
VALID = "valid.bin"

Progress = Callable[[str, float, float], None]
"""What is being done, how much of it is done, and all of it, in bytes of the sources."""


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
    number of processes nor being killed and started again changes a byte.

    Args:
        sources: in order.
        out: the folder.
        options: of the tokenizer and the split.
        workers: processes.
        progress: told how far it is.

    Returns:
        The manifest.

    Raises:
        UserError: if the sources cannot be read, or ``out`` holds something else.
    """
    _check(sources, options)
    given = _given_tokenizer(sources, options)
    asked = {
        "sources": [source.description for source in sources],
        "tokenizer": _asked_tokenizer(sources, options, given),
        "column": options.column,
        "share": options.share,
    }
    if done := finished(out, asked):
        clear(out)
        return done
    out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out):
        begin(out, asked)
        pieces = cut(sources)
        settings = _settings(sources, pieces, out, options, given, progress)
        missing = [i for i in range(len(pieces)) if not is_done(out, i)]
        total = sum(piece.bytes for piece in pieces)
        ready = total - sum(pieces[i].bytes for i in missing)
        progress("tokens", ready, total)
        workers = min(workers, 1 + (total - ready) // _WORTH_A_PROCESS)
        for number in write_pieces(settings, missing, pieces, workers):
            ready += pieces[number].bytes
            progress("tokens", ready, total)
        manifest = finish(out, {"content": "tokens", "asked": asked, **_joined(settings, pieces)})
        clear(out)
    return manifest


def _check(sources: Sequence[Source], options: TokenOptions) -> None:
    if not sources:
        raise UserError("give one source at least: a file, a folder, or hf:NAME")
    check_once(sources)
    if not 0 <= options.share < 1:
        raise UserError(f"--share {options.share:g} must be from 0 to below 1")
    bins = [source.kind == "bin" for source in sources]
    if any(bins) and not all(bins):
        raise UserError("token files (.bin) and text cannot be prepared together")
    if options.tokenizer == "bytes" and any(bins):
        raise UserError("--tokenizer bytes does not go with .bin files, which hold tokens already")


def _given_tokenizer(sources: Sequence[Source], options: TokenOptions) -> str:
    """The text of the user's tokenizer.json; "" if there is none to read."""
    if options.tokenizer in ("", "bytes"):
        if not options.tokenizer and sources[0].kind != "bin":
            check_vocabulary(options.vocabulary)
        return ""
    return read_tokenizer(options.tokenizer)


def _asked_tokenizer(sources: Sequence[Source], options: TokenOptions, given: str) -> str:
    if given:
        return hash_of(given)
    if sources[0].kind == "bin":
        return "gpt2, not checked"
    return options.tokenizer or f"trained, {options.vocabulary}"


def _settings(
    sources: Sequence[Source],
    pieces: Sequence[Piece],
    out: Path,
    options: TokenOptions,
    given: str,
    progress: Progress,
) -> ShardSettings:
    path, bins = out / TOKENIZER, sources[0].kind == "bin"
    if not given and (bins or options.tokenizer == "bytes"):
        vocabulary, end = (_GPT2, _GPT2 - 1) if bins else (Bytes.vocabulary, Bytes.end)
        dtype = token_type(vocabulary)
        return ShardSettings(out, dtype, None, options.column, options.share, end, vocabulary)
    if not path.exists():
        if not given:
            progress("tokenizer", 0, 1)
            given = train_tokenizer(
                _sample(pieces, options.column, options.share), options.vocabulary
            )
        write_whole(path, given)
    bpe = BPE(path)
    dtype = token_type(bpe.vocabulary)
    return ShardSettings(out, dtype, path, options.column, options.share, bpe.end, bpe.vocabulary)


def _sample(pieces: Sequence[Piece], column: str, share: float) -> Any:
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


def _joined(settings: ShardSettings, pieces: Sequence[Piece]) -> dict[str, Any]:
    """The manifest's account of all shards; those for validation become one."""
    out = settings.out
    records = [read_record(out, number) for number in range(len(pieces))]
    sides: dict[Split, list[Counts]] = {
        split: [record[split] for record in records] for split in ("train", "valid")
    }
    ways: dict[Split, tuple[str, str]] = {
        "train": ("training", "lower --share"),
        "valid": ("validation", "raise --share, or give --valid FILE"),
    }
    if not any(count.tokens for side in sides.values() for count in side):
        names = [source.path for piece in pieces for source in piece.sources]
        shown = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
        raise UserError(f"the sources hold no text, only empty documents: {shown or 'no files'}")
    for split, (what, way) in ways.items():
        if not any(count.tokens for count in sides[split]):
            raise UserError(f"no document is for {what}: {way} (into a new folder)")
    files = {
        shard_paths(out, i)["train"].name: count.file | {"tokens": count.tokens}
        for i, count in enumerate(sides["train"])
        if count.tokens
    }
    splits = {
        "train": {"files": list(files), **_sum(sides["train"])},
        "valid": {"files": [VALID], **_sum(sides["valid"])},
    }
    files[VALID] = _join_valid(out, len(pieces)) | {"tokens": splits["valid"]["tokens"]}
    tokenizer: dict[str, Any] = {
        "file": settings.tokenizer and settings.tokenizer.name,
        "vocabulary": settings.vocabulary,
        "end": settings.end,
    }
    if settings.tokenizer:
        content = settings.tokenizer.read_text(encoding="utf-8")
        tokenizer["sha256"] = hash_of(content)
        files[TOKENIZER] = {"bytes": len(content.encode()), "sha256": hash_of(content)}
    return {"dtype": settings.dtype, "tokenizer": tokenizer, "splits": splits, "files": files}


def _join_valid(out: Path, count: int) -> dict[str, Any]:
    with HashedFile(out / VALID) as joined:
        for number in range(count):
            path = shard_paths(out, number)["valid"]
            if path.exists():
                with path.open("rb") as part:
                    while data := part.read(2**20):
                        joined.write(data)
    return joined.facts


def _sum(counts: Sequence[Counts]) -> dict[str, Any]:
    sizes = [count.bytes for count in counts]
    return {
        "tokens": sum(count.tokens for count in counts),
        "documents": sum(count.documents for count in counts),
        "bytes": None if None in sizes else sum(size or 0 for size in sizes),
    }

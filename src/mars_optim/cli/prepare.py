"""``mars prepare``: sources as they are found -> a folder that a plan's task reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import UserError
from .progress import Progress

if TYPE_CHECKING:
    from ..experiment.data import TokenOptions


def prepare(
    *sources: str,
    out: Path | None = None,
    valid: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    share: float = 0.05,
    tokenizer: str = "",
    vocabulary: int = 4096,
    text: str = "text",
    config: str = "",
    label: str = "",
    workers: int = 0,
    verify: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Turn text into tokens, or images into arrays, ready for training.

    Stop it at any moment; the same command resumes it, and ends with the same bytes.

    Parameters
    ----------
    sources:
        Text files, JSONL, Parquet, nanoGPT's .bin, folders of them, CIFAR's archive, or hf:NAME
        for a data set of the Hugging Face hub (or of a local folder).
    out:
        Folder to write into.
    valid:
        Sources for validation. Without it, the names of files of images and tokens show the
        split, and documents are split by their hashes.
    share:
        Share of the documents for validation.
    tokenizer:
        A tokenizer.json, a folder with vocab.json and merges.txt (GPT-2's), or the word bytes.
        Without it, the command trains a byte-level BPE on the sources.
    vocabulary:
        Number of tokens of the tokenizer that the command trains.
    text:
        Key or column that holds the text.
    config:
        Configuration of the data set on the hub.
    label:
        Column of the images' labels; by default label, labels or fine_label.
    workers:
        Threads of the tokenizer; 0 for one per core.
    verify:
        Compare a prepared folder (the only source) with its hashes, and stop.
    """
    if verify:
        _verify(sources)
        return
    if out is None:
        raise UserError("--out is needed: give the folder to write into")
    for source in map(Path, (*sources, *valid)):
        if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise UserError(
                f"--out {out} lies inside the source {source}: give a folder outside the source"
            )
    if not 0 <= workers <= 1024:
        raise UserError(f"--workers {workers} must be from 0 to 1024")
    from ..experiment.data import TokenOptions

    options = TokenOptions(tokenizer, vocabulary, text, share)
    try:
        with Progress() as shown:
            manifest = _prepared(sources, valid, out, options, config, label, workers, shown)
    except OSError as error:
        raise UserError(
            f"{error.filename or out}: {error.strerror or error}; run the same command again "
            "to continue"
        ) from None
    print(_summary(out, manifest))


def _prepared(
    sources: tuple[str, ...],
    valid: tuple[str, ...],
    out: Path,
    options: TokenOptions,
    config: str,
    label: str,
    workers: int,
    shown: Progress,
) -> dict[str, Any]:
    """The manifest, of images if the sources hold such, else of tokens."""
    from ..experiment.data import prepare_tokens
    from ..experiment.data.image_sources import image_files, prepare_image_files
    from ..experiment.data.sources import find_sources, told

    def of_tokens(what: str, done: float, total: float) -> None:
        if what == "tokenizer":
            shown("training the tokenizer")
        else:
            shown(f"tokens, {done / 1e6:,.1f} of {total / 1e6:,.1f} MB", done, total, "MB", 1e6)

    images, left_out = image_files(sources)
    if images:
        held_out, more = image_files(valid)
        if valid and not held_out:
            raise UserError(
                f"--valid {valid[0]} holds no images, and {sources[0]} does: give images for both"
            )
        shown.say(told(left_out + more, "Parquet"))
        return prepare_image_files(
            images, held_out, out, label, lambda count: shown(f"{count:,} images")
        )
    found, left_out = find_sources(sources, "train" if valid else None, config)
    validation, more = find_sources(valid, "valid", config)
    shown.say(told(left_out + more))
    return prepare_tokens(found + validation, out, options, workers or _cores(), of_tokens)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not everywhere; counts those that we may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _verify(sources: tuple[str, ...]) -> None:
    from ..experiment.tasks.prepared import check_files, read_manifest

    if len(sources) != 1:
        raise UserError("--verify takes one folder")
    folder = Path(sources[0])
    try:
        manifest = read_manifest(folder, None, "folder")
        check_files(folder, manifest, "folder", again=True)
    except ValueError as error:
        raise UserError(str(error)) from None
    print(f"{folder} is whole: {len(manifest['files'])} files")


def _summary(out: Path, manifest: dict[str, Any]) -> str:
    train, valid = (manifest["splits"][split] for split in ("train", "valid"))
    if manifest["content"] == "images":
        return (
            f"{out}: {train['images']:,} training and {valid['images']:,} validation images in "
            f"{manifest['classes']} classes"
        )
    return (
        f"{out}: {train['tokens']:,} training and {valid['tokens']:,} validation tokens of "
        f"{train['documents']:,} and {valid['documents']:,} documents; a vocabulary of "
        f"{manifest['tokenizer']['vocabulary']:,}"
    )

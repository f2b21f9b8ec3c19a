"""Images or text: what the user's sources are, prepared as that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import UserError, check_text
from .cifar import cifar_batches, cifar_names, cifar_splits, is_cifar
from .folders import files_below
from .images import Batch, prepare_images
from .parquet import class_names, holds_images, image_batches
from .sources import find_sources
from .validation_split import Split, split_of

Opened = tuple[Split, Callable[[], Iterator[Batch]]]


def image_files(given: Sequence[str]) -> list[Path]:
    """The files of images among the sources: CIFAR's archive, or Parquet with an image column.

    Raises:
        UserError: if some are and others are not.
    """
    archives = [Path(word) for word in given if is_cifar(Path(word))]
    if archives:
        if len(archives) < len(given):
            raise UserError(f"{archives[0]} is CIFAR's archive: give it alone")
        return archives
    if any(word.startswith("hf:") for word in given):
        return []
    files: list[Path] = []
    for path in map(Path, given):
        if path.is_dir():
            files += [p for p in files_below(path)[0] if p.suffix.lower() == ".parquet"]
        elif path.suffix.lower() == ".parquet" and path.is_file():
            files.append(path)
    images = [path for path in files if holds_images(path)]
    if images and len(images) < len(files):
        other = next(path for path in files if path not in images)
        raise UserError(f"{images[0]} holds images and {other} does not: prepare them apart")
    return images


def not_images(given: Sequence[str]) -> list[Path]:
    """What is left out of folders of Parquet files with images."""
    left_out: list[Path] = []
    for path in map(Path, given):
        if path.is_dir() and not is_cifar(path):
            files, unread = files_below(path)
            left_out += [p for p in files if p.suffix.lower() != ".parquet"] + unread
    return left_out


def prepare_image_files(
    files: Sequence[Path],
    valid: Sequence[Path],
    out: Path,
    label: str,
    progress: Callable[[int], None],
) -> dict[str, Any]:
    """Prepare what :func:`image_files` found.

    Args:
        files: whose names say of which split they are.
        valid: all of whose images are for validation; then ``files`` are all for training.
        out: the folder.
        label: column of the labels.
        progress: called with the number of images so far.
    """
    opened: list[Opened] = []
    for path in (*files, *valid):
        check_text(str(path), "this file's name")
        if is_cifar(path):
            splits = sorted(set(cifar_splits(path)))
            opened += [(split, partial(cifar_batches, path, split)) for split in splits]
            continue
        split = "valid" if path in valid else "train" if valid else split_of(path)
        if split is None:
            raise UserError(
                f"{path}: its name must begin with train, test or valid; or give --valid"
            )
        opened.append((split, partial(image_batches, path, label)))
    first = files[0]
    asked = {"sources": [[p.name, _size(p)] for p in (*files, *valid)], "label": label}
    names = cifar_names(first) if is_cifar(first) else class_names(first, label)
    return prepare_images(opened, out, asked, names, progress)


def _size(path: Path) -> int:
    parts = sorted(path.iterdir()) if path.is_dir() else [path]
    return sum(part.stat().st_size for part in parts)


__all__ = ["find_sources", "image_files", "not_images", "prepare_image_files"]

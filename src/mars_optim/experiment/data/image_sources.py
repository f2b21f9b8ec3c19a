"""Files of images: Parquet as the hub keeps it, or CIFAR's own archive."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError, check_text, need
from .cifar import is_cifar, read_cifar
from .formats import check_parquet, open_parquet
from .images import Batch, Pixels, prepare_images
from .sources import files_below
from .validation_split import split_of

_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("label", "labels", "fine_label")
_ROWS = 100
_MOST_PIXELS = 2**24  # of an image


def image_files(given: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """The files of images among the sources: CIFAR's archive, or Parquet with an image column.

    Returns:
        These, and the files and links beside them that are left out.

    Raises:
        UserError: if some sources are of images and others are not.
    """
    archives = [Path(word) for word in given if is_cifar(Path(word))]
    if archives:
        if len(archives) < len(given):
            raise UserError(f"{archives[0]} is an archive of CIFAR: give it alone")
        return archives, []
    if any(word.startswith("hf:") for word in given):
        return [], []
    files: list[Path] = []
    left_out: list[Path] = []
    for path in map(Path, given):
        inside, unread = files_below(path) if path.is_dir() else ([path], [])
        files += [p for p in inside if p.suffix.lower() == ".parquet" and p.is_file()]
        left_out += [p for p in inside if p.suffix.lower() != ".parquet"] + unread
    names = {path: open_parquet(path).schema_arrow.names for path in files}
    images = [path for path in files if set(_IMAGE_COLUMNS) & set(names[path])]
    if images and len(images) < len(files):
        other = next(path for path in files if path not in images)
        raise UserError(f"{images[0]} holds images and {other} does not: prepare them separately")
    return images, left_out


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
    opened: list[tuple[str, Callable[[], Iterator[Batch]]]] = []
    names: list[str] = []
    for path in (*files, *valid):
        check_text(str(path), "this file's name")
        if is_cifar(path):
            found, splits = read_cifar(path)
            opened += splits
        else:
            found = _class_names(path, label)
            side = "valid" if path in valid else "train" if valid else split_of(path)
            if side is None:
                raise UserError(
                    f"{path}: its name must begin with train, test or valid; or give --valid"
                )
            opened.append((side, partial(_parquet_batches, path, label)))
        names = found if path == files[0] else names
    asked = {"sources": [[p.name, _size(p)] for p in (*files, *valid)], "label": label}
    return prepare_images(opened, out, asked, names, progress)


def _size(path: Path) -> int:
    parts = sorted(path.iterdir()) if path.is_dir() else [path]
    return sum(part.stat().st_size for part in parts)


def _class_names(path: Path, label: str) -> list[str]:
    """Names that the Hugging Face hub gives the classes, if the file has them."""
    schema = open_parquet(path).schema_arrow
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return list(features[_column(schema.names, path, _LABEL_COLUMNS, label)]["names"])
    except (KeyError, ValueError, TypeError):
        return []


def _parquet_batches(path: Path, label: str) -> Iterator[Batch]:
    """Images and labels of a file one by one, in its order.

    Args:
        path: of a file with the column "img" or "image" (PNG, JPEG, ... as bytes).
        label: the column of the labels; by default "label", "labels" or "fine_label".

    Raises:
        UserError: naming the file and row of an image that cannot be read.
    """
    file = open_parquet(path)
    names = file.schema_arrow.names
    image = _column(names, path, _IMAGE_COLUMNS)
    label = _column(names, path, _LABEL_COLUMNS, label)
    check_parquet(file, path, range(file.num_row_groups), image)
    row, shape = 0, None
    for batch in file.iter_batches(batch_size=_ROWS, columns=[image, label]):
        try:
            labels = np.array(batch.column(label).to_pylist(), dtype=np.int64)
        except (TypeError, ValueError):
            raise UserError(
                f"{path}: the column {label!r} must hold whole numbers, the classes from 0"
            ) from None
        for i, cell in enumerate(batch.column(image)):
            pixels = _pixels(cell.as_py(), path, row + i)
            shape = shape or pixels.shape
            if pixels.shape != shape:
                raise UserError(f"{path}: images are of different sizes; resize them first")
            yield pixels[None], labels[i : i + 1]
        row += len(labels)


def _pixels(cell: Any, path: Path, row: int) -> Pixels:
    pillow = need("PIL.Image", "data")
    data: Any = cell.get("bytes") if isinstance(cell, dict) else cell
    try:
        with pillow.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > _MOST_PIXELS:
                raise ValueError(f"{width}x{height} are too many pixels; resize it first")
            return np.asarray(image.convert("RGB"))
    except Exception as error:
        raise UserError(f"{path}: the image in row {row} cannot be read: {error}") from None


def _column(names: list[str], path: Path, usual: tuple[str, ...], chosen: str = "") -> str:
    wanted = (chosen,) if chosen else usual
    found = next((name for name in wanted if name in names), None)
    if found is None:
        raise UserError(
            f"{path} has no column {' or '.join(map(repr, wanted))}; it has {', '.join(names)}"
        )
    return found

"""Parquet files, as the Hugging Face hub keeps data sets."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError, need
from .images import Batch
from .packed import MOST_TIMES, too_large

_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("label", "labels", "fine_label")
_ROWS = 1000
_MOST_PIXELS = 2**24  # of an image
_MOST_BYTES = 2**26  # of the images that are held


def open_parquet(path: Path) -> Any:
    """The file, by pyarrow.

    Raises:
        UserError: if it is no Parquet file.
    """
    parquet = need("pyarrow.parquet", "data")
    try:
        return parquet.ParquetFile(path)
    except Exception as error:
        raise UserError(f"{path} is no Parquet file that can be read: {error}") from None


def check_parquet(file: Any, path: Path, groups: Iterable[int], column: str) -> tuple[int, int]:
    """See that a column does not unpack to absurd sizes.

    Returns:
        The most bytes that it has in a row group, and so the most that one cell has; and the most
        that all of its cells may have.

    Raises:
        UserError: if it does.
    """
    longest = all_packed = 0
    for group in groups:
        row_group = file.metadata.row_group(group)
        for i in range(row_group.num_columns):
            chunk = row_group.column(i)
            if chunk.path_in_schema.partition(".")[0] != column:
                continue
            whole, packed = chunk.total_uncompressed_size, chunk.total_compressed_size
            if whole > max(2**26, MOST_TIMES * packed):
                raise too_large(f"{path}, column {column!r}")
            longest = max(longest, whole)
            all_packed += packed
    return longest, max(2**26, MOST_TIMES * all_packed)


def columns(path: Path) -> list[str]:
    """Names of the columns."""
    return list(open_parquet(path).schema_arrow.names)


def holds_images(path: Path) -> bool:
    """Whether one of the columns holds images."""
    return any(name in _IMAGE_COLUMNS for name in columns(path))


def class_names(path: Path, label: str = "") -> list[str]:
    """What the Hugging Face hub calls the classes, if it is in the file."""
    schema = open_parquet(path).schema_arrow
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return list(features[_column(schema.names, path, _LABEL_COLUMNS, label)]["names"])
    except (KeyError, ValueError, TypeError):
        return []


def image_batches(path: Path, label: str = "") -> Iterator[Batch]:
    """Images and labels of a file, in its order, up to a thousand at a time.

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
    row = 0
    for batch in file.iter_batches(batch_size=_ROWS, columns=[image, label]):
        try:
            labels = np.array(batch.column(label).to_pylist(), dtype=np.int64)
        except (TypeError, ValueError):
            raise UserError(
                f"{path}: the column {label!r} must hold whole numbers, the classes from 0"
            ) from None
        first = row
        for pixels in _stacks(batch.column(image), path, row):
            yield pixels, labels[row - first : row - first + len(pixels)]
            row += len(pixels)


def _stacks(cells: Any, path: Path, row: int) -> Iterator[Any]:
    """The images of a batch, as many at a time as there is room for."""
    held: list[Any] = []
    for i, cell in enumerate(cells):
        held.append(_pixels(cell.as_py(), path, row + i))
        if held[-1].shape != held[0].shape:
            raise UserError(f"{path}: images are of different sizes; resize them first")
        if held[0].nbytes * len(held) >= _MOST_BYTES:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held)


def _pixels(cell: Any, path: Path, row: int) -> Any:
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

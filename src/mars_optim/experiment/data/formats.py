"""Parquet files, data sets of the Hugging Face hub, and token files: opened and measured."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import UserError, need
from .validation_split import Split

MOST_TIMES = 200
"""Most times its packed size that a source may unpack to; text has 3 to 10."""

ALWAYS = 2**26
"""Bytes that any source may have."""

_VALIDATION = ("validation", "valid", "test")
_MAGIC, _VERSION, _HEADER = 20240520, 1, 256  # int32 numbers; llm.c and modded-nanogpt


def open_parquet(path: Path) -> Any:
    """The file, by pyarrow.

    Raises:
        UserError: if it is no Parquet file.
    """
    parquet = need("pyarrow.parquet", "data")
    try:
        return parquet.ParquetFile(path)
    except Exception as error:
        raise UserError(f"{path} is not a Parquet file that can be read: {error}") from None


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
        for chunk in map(row_group.column, range(row_group.num_columns)):
            if chunk.path_in_schema.partition(".")[0] != column:
                continue
            whole, packed = chunk.total_uncompressed_size, chunk.total_compressed_size
            if whole > max(ALWAYS, MOST_TIMES * packed):
                raise too_large(f"{path}, column {column!r}")
            longest = max(longest, whole)
            all_packed += packed
    return longest, max(ALWAYS, MOST_TIMES * all_packed)


def too_large(what: object) -> UserError:
    """The refusal of a source that unpacks to absurd sizes."""
    return UserError(
        f"{what} unpacks to more than {MOST_TIMES} times its size, and no text does that: "
        "if it is right, unpack it first"
    )


def is_saved(path: Path) -> bool:
    """Whether ``datasets`` has saved a data set in this folder."""
    return any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))


def hub_splits(
    name: str, config: str, split: Split | None
) -> list[tuple[str, Split | None, int, int]]:
    """The train split of a data set, and its validation (or test) split if it has one.

    Args:
        name: on the hub, or of a local folder.
        config: of the data set; "" for its only one.
        split: where all of it belongs, if given; then only its train split is read.

    Returns:
        Of each its name, where it belongs, its bytes and its rows.
    """
    splits = load_data_set(name, config)
    if "train" not in splits:
        raise UserError(f"hf:{name} has no train split; it has {', '.join(splits)}")
    validation = next((key for key in _VALIDATION if key in splits), None)
    chosen: list[tuple[str, Split | None]] = [("train", split)]
    if split is None and validation:
        chosen = [("train", "train"), (validation, "valid")]
    return [(key, to, int(splits[key].data.nbytes), len(splits[key])) for key, to in chosen]


@functools.lru_cache(maxsize=2)
def load_data_set(name: str, config: str) -> dict[str, Any]:
    """The splits of a data set.

    Raises:
        UserError: if it cannot be loaded.
    """
    datasets = need("datasets", "hf")
    try:
        if is_saved(Path(name)):
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name, config or None)
    except Exception as error:
        first = (str(error).splitlines() or [""])[0][:200]
        raise UserError(
            f"hf:{name} cannot be loaded ({type(error).__name__}: {first}); without a network give "
            "a local folder"
        ) from None
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def bin_tokens(path: Path) -> tuple[int, int]:
    """Where the tokens begin, in bytes, and how many there are.

    Raises:
        UserError: if the file is cut off or of another version.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(4 * _HEADER)
    header = np.frombuffer(start[: len(start) // 4 * 4], dtype="<i4")
    if len(header) == 0 or header[0] != _MAGIC:
        if size % 2:
            raise UserError(f"{path} has {size:,} bytes, not a whole number of uint16 tokens")
        return 0, size // 2
    if len(header) < _HEADER or header[1] != _VERSION:
        raise UserError(f"{path} has a header of an unknown version")
    count = int(header[2])
    if size != 4 * _HEADER + 2 * count:
        raise UserError(
            f"{path} has {size:,} bytes, and its header says {4 * _HEADER + 2 * count:,}: it "
            "is not whole; copy it again"
        )
    return 4 * _HEADER, count


def read_bin(path: Path, start: int, stop: int) -> npt.NDArray[np.uint16]:
    """Tokens ``start`` to ``stop``, as a memory map."""
    offset, _ = bin_tokens(path)
    tokens: Any = np.memmap(
        path, dtype="<u2", mode="r", offset=offset + 2 * start, shape=(stop - start,)
    )
    return tokens  # type: ignore[no-any-return]

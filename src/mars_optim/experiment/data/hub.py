"""Data sets of the Hugging Face hub, by name or from a local folder."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import UserError, need
from .source import Source
from .validation_split import Split

_VALIDATION = ("validation", "valid", "test")
_BATCH = 256


def hub_sources(name: str, config: str, split: Split | None) -> list[Source]:
    """The train split of a data set, and its validation (or test) split if it has one.

    Args:
        name: on the hub, or of a local folder.
        config: of the data set; "" for its only one.
        split: where all of it belongs, if given; then only its train split is read.

    Raises:
        UserError: if it cannot be loaded.
    """
    splits = _load(name, config)
    if "train" not in splits:
        raise UserError(f"hf:{name} has no train split but {', '.join(splits)}")
    chosen: list[tuple[str, Split | None]] = [("train", split)]
    validation = next((key for key in _VALIDATION if key in splits), None)
    if split is None and validation:
        chosen = [("train", "train"), (validation, "valid")]
    return [
        Source(
            "hub",
            name,
            "/".join(filter(None, (f"hf:{Path(name).name}", config, key))),
            to,
            int(splits[key].data.nbytes),
            config,
            key,
        )
        for key, to in chosen
    ]


def rows(name: str, config: str, split: str) -> int:
    """Number of documents."""
    return len(_load(name, config)[split])


def texts(name: str, config: str, split: str, start: int, stop: int, column: str) -> Iterator[Any]:
    """The cells of one column, from row ``start`` to before ``stop``.

    Raises:
        UserError: if there is no such column.
    """
    data = _load(name, config)[split]
    if column not in data.column_names:
        raise UserError(
            f"hf:{name} has no column {column!r} but {', '.join(data.column_names)}; name the "
            "text's with --text"
        )
    data = data.select_columns([column])
    for first in range(start, stop, _BATCH):
        yield from data[first : min(first + _BATCH, stop)][column]


@functools.lru_cache(maxsize=2)  # each process opens it once
def _load(name: str, config: str) -> dict[str, Any]:
    datasets = need("datasets", "hf")
    path = Path(name)
    try:
        if any((path / file).is_file() for file in ("dataset_dict.json", "state.json")):
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

"""CIFAR's own archive, in Python pickles, read without running what is in them."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..records import UserError
from .images import Batch
from .split import Split

_SPLITS: dict[str, Split] = {
    **{f"data_batch_{i}": "train" for i in range(1, 6)},
    "train": "train",
    "test_batch": "valid",
    "test": "valid",
}
_NAMES = {"batches.meta": b"label_names", "meta": b"fine_label_names"}
_LABELS = (b"labels", b"fine_labels")
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((module, "_reconstruct") for module in ("numpy.core.multiarray", "numpy._core.multiarray")),
    ("_codecs", "encode"),
}


def is_cifar(path: Path) -> bool:
    """Whether this is CIFAR's archive, or the folder out of it."""
    if path.is_dir():
        parts = {part.name for part in path.iterdir()}
        return "batches.meta" in parts or parts >= {"meta", "train", "test"}
    return path.name.startswith("cifar-") and path.name.endswith((".tar.gz", ".tgz", ".tar"))


def cifar_splits(path: Path) -> list[Split]:
    """Which splits are in it."""
    return [_SPLITS[name] for name in sorted(_members(path)) if name in _SPLITS]


def cifar_names(path: Path) -> list[str]:
    """What the classes are called."""
    for name, key in _NAMES.items():
        if name in (members := _members(path)):
            found = _unpickled(members[name], f"{path}: {name}").get(key, [])
            return [n.decode() if isinstance(n, bytes) else str(n) for n in found]
    return []


def cifar_batches(path: Path, split: Split) -> Iterator[Batch]:
    """The images of a split, in the archive's order by name.

    Raises:
        UserError: naming the part that is damaged, or is no CIFAR.
    """
    for name, data in sorted(_members(path).items()):
        if _SPLITS.get(name) != split:
            continue
        where = f"{path}: {name}"
        batch = _unpickled(data, where)
        pixels = batch.get(b"data")
        labels = next((batch[key] for key in _LABELS if key in batch), None)
        if (
            not isinstance(pixels, np.ndarray)
            or pixels.dtype != np.uint8
            or pixels.ndim != 2
            or pixels.shape[1] != 3 * 32 * 32
            or labels is None
            or len(labels) != len(pixels)
        ):
            raise UserError(
                f"{where} is no part of CIFAR: 3072 bytes an image and labels, it needs"
            )
        images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        yield np.ascontiguousarray(images), np.asarray(labels, dtype=np.int64)


def _members(path: Path) -> dict[str, bytes]:
    """The parts by name: 180 MB at the most, which is what CIFAR is."""
    wanted = {*_SPLITS, *_NAMES}
    if path.is_dir():
        return {p.name: p.read_bytes() for p in path.iterdir() if p.name in wanted}
    parts: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and (name := Path(member.name).name) in wanted:
                    file = archive.extractfile(member)
                    parts[name] = file.read() if file else b""
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}; fetch it again") from None
    return parts


class _Arrays(pickle.Unpickler):
    """Makes arrays and plain data, and nothing that a pickle might run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return super().find_class(module, name)


def _unpickled(data: bytes, where: str) -> dict[Any, Any]:
    try:
        value = _Arrays(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:
        raise UserError(f"{where} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{where} is no part of CIFAR")
    return value

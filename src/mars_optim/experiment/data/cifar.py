"""CIFAR's own archive, in Python pickles, read without running what is in them."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError
from .images import Batch

_SPLITS = {
    **{f"data_batch_{i}": "train" for i in range(1, 6)},
    "train": "train",
    "test_batch": "valid",
    "test": "valid",
}
_NAMES = {"batches.meta": b"label_names", "meta": b"fine_label_names"}
_WANTED = {*_SPLITS, *_NAMES}
_LARGEST = 192 * 2**20  # bytes of all; CIFAR has 186 million
_IMAGES = 1000  # at a time
_MOST_ARRAYS = 4  # of a part
_LABELS = (b"labels", b"fine_labels")
_MODULES = {"numpy", "numpy.core.multiarray", "numpy._core.multiarray", "_codecs"}


def is_cifar(path: Path) -> bool:
    """Whether this is CIFAR's archive, or the folder out of it."""
    if path.is_dir():
        parts = {part.name for part in path.iterdir()}
        return "batches.meta" in parts or parts >= {"meta", "train", "test"}
    return path.name.startswith("cifar-") and path.name.endswith((".tar.gz", ".tgz", ".tar"))


def read_cifar(path: Path) -> tuple[list[str], list[tuple[str, Callable[[], Iterator[Batch]]]]]:
    """Names of the classes, and the images by split, in the order of the parts' names.

    All of it is held, which is 185 MB.

    Raises:
        UserError: naming the part that is damaged, or is no CIFAR.
    """
    names: list[str] = []
    found = {}
    for name, file in _parts(path):
        where = f"{path}: {name}"
        part = _unpickled(file, where)
        if name in _NAMES:
            words = part.get(_NAMES[name], [])
            names = [n.decode() if isinstance(n, bytes) else str(n) for n in words]
        else:
            found[name] = partial(_batches, *_images(part, where))
    return names, [(_SPLITS[name], found[name]) for name in sorted(found)]


def _images(part: dict[Any, Any], where: str) -> Batch:
    pixels = part.get(b"data")
    labels = next((part[key] for key in _LABELS if key in part), None)
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.ndim != 2
        or pixels.shape[1] != 3 * 32 * 32
        or labels is None
        or len(labels) != len(pixels)
    ):
        raise UserError(
            f"{where} is not a part of CIFAR: it must hold images of 3072 bytes, and labels"
        )
    return pixels, np.asarray(labels, dtype=np.int64)


def _batches(pixels: Any, labels: Any) -> Iterator[Batch]:
    for i in range(0, len(pixels), _IMAGES):
        images = pixels[i : i + _IMAGES].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        yield np.ascontiguousarray(images), labels[i : i + _IMAGES]


def _parts(path: Path) -> Iterator[tuple[str, Any]]:
    """The parts that are there.

    Raises:
        UserError: if they are more than CIFAR has, or damaged.
    """
    if path.is_dir():
        for part in path.iterdir():
            if part.name in _WANTED:
                with part.open("rb") as file:
                    yield part.name, io.BytesIO(_bounded(file, part))
        return
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            whole = _bounded(gzip.GzipFile(fileobj=raw) if packed else raw, path)
        with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as archive:
            for member in archive:
                name = Path(member.name).name
                part_file = archive.extractfile(member) if member.isfile() else None
                if part_file and name in _WANTED:
                    yield name, part_file
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise UserError(f"{path} is damaged: {error}; fetch it again") from None


def _bounded(file: Any, path: Path) -> bytes:
    """All of a file, which so bounds whatever its headers say."""
    data: bytes = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise UserError(
            f"{path} unpacks to more than {_LARGEST >> 20} MiB, and CIFAR has 178: it is not CIFAR"
        )
    return data


class _Arrays(pickle.Unpickler):
    """Makes a few arrays and plain data, and nothing that a pickle might run."""

    _arrays = _encoded = 0

    def find_class(self, module: str, name: str) -> Any:
        known = {
            "_reconstruct": self._array,
            "encode": self._encode,
            "dtype": np.dtype,
            "ndarray": object,  # named, but not called
        }
        if module not in _MODULES or name not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return known[name]

    def _array(self, *_: Any) -> Any:
        """An empty one, which its state fills."""
        self._arrays += 1
        if self._arrays > _MOST_ARRAYS:
            raise pickle.UnpicklingError(f"it holds more than {_MOST_ARRAYS} arrays")
        return np.empty(0, dtype=np.int8)

    def _encode(self, text: str, encoding: str) -> bytes:
        """How a pickle of Python 2 keeps bytes."""
        self._encoded += len(text)
        if self._encoded > _LARGEST or encoding != "latin1":
            raise pickle.UnpicklingError("it encodes more than CIFAR has")
        return text.encode(encoding)


def _unpickled(file: Any, where: str) -> dict[Any, Any]:
    try:
        value = _Arrays(file, encoding="bytes").load()
    except Exception as error:
        raise UserError(f"{where} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{where} is not a part of CIFAR")
    return value

"""CIFAR's own archive, in Python pickles, read without running what is in them."""

from __future__ import annotations

import contextlib
import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError
from .images import Batch
from .validation_split import Split

_SPLITS: dict[str, Split] = {
    **{f"data_batch_{i}": "train" for i in range(1, 6)},
    "train": "train",
    "test_batch": "valid",
    "test": "valid",
}
_NAMES = {"batches.meta": b"label_names", "meta": b"fine_label_names"}
_WANTED = {*_SPLITS, *_NAMES}
_LARGEST = 192 * 2**20  # bytes of a part; CIFAR-100's training images have 155 million
_IMAGES = 1000  # at a time
_MOST_ARRAYS = 4  # of a part
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
    return [_SPLITS[name] for name in _parts(path) if name in _SPLITS]


def cifar_names(path: Path) -> list[str]:
    """What the classes are called."""
    there = _parts(path)
    for name, key in _NAMES.items():
        if name in there:
            found = _unpickled(_read(path, name), f"{path}: {name}").get(key, [])
            return [n.decode() if isinstance(n, bytes) else str(n) for n in found]
    return []


def cifar_batches(path: Path, split: Split) -> Iterator[Batch]:
    """The images of a split, in the archive's order by name.

    Raises:
        UserError: naming the part that is damaged, or is no CIFAR.
    """
    for name in _parts(path):
        if _SPLITS.get(name) != split:
            continue
        where = f"{path}: {name}"
        batch = _unpickled(_read(path, name), where)
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
        classes = np.asarray(labels, dtype=np.int64)
        for i in range(0, len(pixels), _IMAGES):
            images = pixels[i : i + _IMAGES].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            yield np.ascontiguousarray(images), classes[i : i + _IMAGES]


def _parts(path: Path) -> list[str]:
    """The names of the parts that are there, in order; none is read."""
    if path.is_dir():
        return sorted(p.name for p in path.iterdir() if p.name in _WANTED)
    with _archive(path) as archive:
        names = {Path(m.name).name for m in archive if m.isfile()}
    return sorted(names & _WANTED)


def _read(path: Path, name: str) -> bytes:
    """One part, alone: 155 MB at the most, which is what CIFAR-100's has.

    Raises:
        UserError: if it is larger, or damaged.
    """
    if path.is_dir():
        _check_size((path / name).stat().st_size, f"{path / name}")
        return (path / name).read_bytes()
    data = b""
    with _archive(path) as archive:
        for member in archive:
            if member.isfile() and Path(member.name).name == name:
                _check_size(member.size, f"{path}: {name}")
                file = archive.extractfile(member)
                data = file.read() if file else b""
    return data


def _check_size(size: int, where: str) -> None:
    if size > _LARGEST:
        raise UserError(
            f"{where} has {size >> 20:,} MiB, where CIFAR's largest part has 148: this is no CIFAR"
        )


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[tarfile.TarFile]:
    """The archive, of which nothing is unpacked beyond what CIFAR can be."""
    try:
        with contextlib.ExitStack() as stack:
            file: Any = stack.enter_context(path.open("rb"))
            if file.peek(2)[:2] == b"\x1f\x8b":
                file = stack.enter_context(gzip.GzipFile(fileobj=file))
            bounded: Any = _Bounded(file)
            yield stack.enter_context(tarfile.open(fileobj=bounded, mode="r:"))
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise UserError(f"{path} is damaged: {error}; fetch it again") from None


class _Bounded:
    """A file for tarfile, which would read a header of any size into memory."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LARGEST:
            raise ValueError(f"a part of {size:,} bytes is no part of CIFAR")
        data: bytes = self._file.read(size)
        return data

    def seek(self, place: int) -> int:
        if place > 4 * _LARGEST:
            raise ValueError(f"it unpacks to more than {4 * _LARGEST >> 20} MiB, as CIFAR does not")
        return int(self._file.seek(place))

    def tell(self) -> int:
        return int(self._file.tell())


class _Array:
    """Stands for numpy's class, which a pickle may name but not call."""


class _Arrays(pickle.Unpickler):
    """Makes a few arrays and plain data, and nothing that a pickle might run."""

    _arrays = _encoded = 0

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        found = {"_reconstruct": self._array, "encode": self._encode, "ndarray": _Array}
        return found.get(name) or super().find_class(module, name)

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


def _unpickled(data: bytes, where: str) -> dict[Any, Any]:
    try:
        value = _Arrays(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:
        raise UserError(f"{where} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{where} is no part of CIFAR")
    return value

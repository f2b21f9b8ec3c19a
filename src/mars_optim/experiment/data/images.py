"""Images with labels -> a folder of bytes, labels and a manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import UserError
from .prepared_files import HashedFile, prepare_folder

Pixels = npt.NDArray[np.uint8]
Batch = tuple[Pixels, npt.NDArray[np.int64]]
"""(number, height, width, channels) and (number,)."""
Opened = Sequence[tuple[str, Callable[[], Iterator[Batch]]]]
"""("train" or "valid", a function that opens it), in order."""

_MOST_CLASSES = 2**16


def prepare_images(
    sources: Opened,
    out: Path,
    asked: dict[str, Any],
    names: Sequence[str] = (),
    progress: Callable[[int], None] = lambda images: None,
) -> dict[str, Any]:
    """Write ``{train,valid}-{images,labels}.bin`` and the manifest into ``out``.

    Args:
        sources: of images.
        out: the folder.
        asked: the sources and settings, for the manifest, which is returned.
        names: of the classes, if known.
        progress: called with the number of images so far.

    Raises:
        UserError: if the sources cannot be read, are of different sizes, or are only one split.
    """
    for split, what in (("train", "training"), ("valid", "test")):
        if split not in [name for name, _ in sources]:
            raise UserError(
                f"there are no {what} images: file names must begin with train, test or valid"
            )

    def work() -> dict[str, Any]:
        counted = _Counted(progress)
        files = _write_split(out, "train", sources, counted)
        train = counted.images
        files |= _write_split(out, "valid", sources, counted)
        return {
            "classes": max(counted.classes, len(names)),
            "names": list(names),
            **counted.statistics,
            "splits": {"train": {"images": train}, "valid": {"images": counted.images - train}},
            "files": files,
        }

    return prepare_folder(out, "images", asked, work)


def _write_split(out: Path, split: str, sources: Opened, counted: _Counted) -> dict[str, Any]:
    before = counted.images
    with (
        HashedFile(out / f"{split}-images.bin") as images,
        HashedFile(out / f"{split}-labels.bin") as labels,
    ):
        for batch in (b for name, opened in sources if name == split for b in opened()):
            counted.add(*batch, training=split == "train")
            images.write(batch[0].tobytes())
            labels.write(batch[1].astype("<u2").tobytes())
        if counted.images == before:
            raise UserError(f"the {split} split has no image")
    return {file.path.name: file.facts for file in (images, labels)}


class _Counted:
    """Shape, classes, mean and standard deviation of the images so far, exact in integers."""

    def __init__(self, progress: Callable[[int], None]) -> None:
        self.images = self.classes = self.pixels = 0
        self.shape: tuple[int, ...] = ()
        self._sums = self._squares = np.zeros(1, dtype=np.int64)
        self._progress = progress

    def add(self, pixels: Pixels, labels: npt.NDArray[np.int64], *, training: bool) -> None:
        shape = pixels.shape[1:]
        self.shape = self.shape or shape
        if shape != self.shape:
            raise UserError(
                f"images are of different sizes, {self.shape[1]}x{self.shape[0]} and "
                f"{shape[1]}x{shape[0]}; resize them first"
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < _MOST_CLASSES:
            raise UserError(
                f"a label is {labels.min() if labels.min() < 0 else labels.max()}; labels must be "
                "whole numbers from 0"
            )
        self.images += len(pixels)
        self.classes = max(self.classes, int(labels.max(initial=-1)) + 1)
        if training:
            wide = pixels.reshape(-1, shape[-1]).astype(np.int64)
            self.pixels += len(wide)
            self._sums = self._sums + wide.sum(axis=0)
            self._squares = self._squares + (wide**2).sum(axis=0)
        self._progress(self.images)

    @property
    def statistics(self) -> dict[str, Any]:
        """Shape, mean and deviation of the training images, where white is 1."""
        means = [s / self.pixels for s in self._sums.tolist()]
        squares = [s / self.pixels for s in self._squares.tolist()]
        stds = [(q - m * m) ** 0.5 for q, m in zip(squares, means, strict=True)]
        return {
            "shape": list(self.shape),
            "mean": [m / 255 for m in means],
            "std": [max(s, 1.0) / 255 for s in stds],
        }

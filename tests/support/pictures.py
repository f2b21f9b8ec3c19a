"""Small images to train on, as `mars prepare` writes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mars_optim.experiment.data.images import Batch, prepare_images
from mars_optim.experiment.tasks import ImageTask, load_images


def pictures(count: int, classes: int = 3, size: int = 8, seed: int = 0) -> Batch:
    """Sorted by class, each brighter than the last in one colour, with noise."""
    rng = np.random.default_rng(seed)
    labels = np.sort(np.arange(count) % classes)
    pixels = rng.integers(0, 60, (count, size, size, 3))
    pixels[np.arange(count), :, :, labels % 3] += 150
    return pixels.astype(np.uint8), labels.astype(np.int64)


def write_pictures(folder: Path, train: int = 60, valid: int = 30, **options: int) -> Path:
    """A prepared folder."""

    def split(count: int, seed: int) -> Iterator[Batch]:
        yield pictures(count, seed=seed, **options)

    sources = [("train", lambda: split(train, 0)), ("valid", lambda: split(valid, 1))]
    prepare_images(sources, folder, {"sources": "made up"})
    return folder


def picture_task(folder: Path, **options: Any) -> ImageTask:
    """A ResNet that takes milliseconds."""
    images = load_images(str(write_pictures(folder)))
    return ImageTask(images, **{"batch": 8, "width": 2, **options})

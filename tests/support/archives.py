"""CIFAR's own archives, small."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np

from mars_optim.experiment.data.images import Pixels


def rows(pixels: Pixels) -> Pixels:
    """As CIFAR keeps them: all red, then green, then blue."""
    return pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)


def cifar_parts(kind: str) -> dict[str, dict[bytes, object]]:
    """The archive's pickles, of ten training and four test images."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (14, 32, 32, 3)).astype(np.uint8)
    labels = [i % 3 for i in range(14)]
    names = [b"airplane", b"automobile", b"bird"]
    if kind == "cifar-100-python":
        train = {
            b"data": rows(pixels[:10]),
            b"fine_labels": labels[:10],
            b"coarse_labels": [0] * 10,
        }
        test = {b"data": rows(pixels[10:]), b"fine_labels": labels[10:], b"coarse_labels": [0] * 4}
        return {"train": train, "test": test, "meta": {b"fine_label_names": names}}
    batches = {
        f"data_batch_{i + 1}": {
            b"data": rows(pixels[2 * i : 2 * i + 2]),
            b"labels": labels[2 * i : 2 * i + 2],
        }
        for i in range(5)
    }
    test = {b"data": rows(pixels[10:]), b"labels": labels[10:]}
    return {**batches, "test_batch": test, "batches.meta": {b"label_names": names}}


def write_archive(folder: Path, kind: str, parts: dict[str, object], packed: bool = True) -> Path:
    inner = "cifar-10-batches-py" if "10-" in kind else kind
    if not packed:
        (folder / inner).mkdir(parents=True)
        for name, part in parts.items():
            (folder / inner / name).write_bytes(pickle.dumps(part, protocol=2))
        return folder / inner
    path = folder / f"{kind}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, part in parts.items():
            data = pickle.dumps(part, protocol=2)
            member = tarfile.TarInfo(f"{inner}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path

"""Parquet files as the Hugging Face hub keeps image data sets."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mars_optim.experiment.data.images import Pixels


def png(pixels: Pixels) -> bytes:
    """Encoded without loss."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_parquet(
    path: Path, pixels: Pixels, labels: list[int], image: str = "img", label: str = "label"
) -> Path:
    """One file with an image and a label column."""
    cells = [{"bytes": png(p), "path": None} for p in pixels]
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        image: pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        label: pa.array(np.array(labels), pa.int64()),
    }
    pq.write_table(pa.table(columns), path)
    return path

"""Token files of nanoGPT and its descendants: uint16, with or without a header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import UserError

_MAGIC, _VERSION, _HEADER = 20240520, 1, 256  # int32 numbers; llm.c and modded-nanogpt


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
        raise UserError(f"{path} has a header of a version that is not known here")
    count = int(header[2])
    if size != 4 * _HEADER + 2 * count:
        raise UserError(
            f"{path} has {size:,} bytes where its header says {4 * _HEADER + 2 * count:,}: it is "
            "not whole"
        )
    return 4 * _HEADER, count


def read_bin(path: Path, start: int, stop: int) -> npt.NDArray[np.uint16]:
    """Tokens ``start`` to ``stop``, as a memory map."""
    offset, _ = bin_tokens(path)
    tokens: Any = np.memmap(
        path, dtype="<u2", mode="r", offset=offset + 2 * start, shape=(stop - start,)
    )
    return tokens  # type: ignore[no-any-return]

"""TensorBoard's event files: their scalars as rows, and whether a file is whole."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from ...errors import UserError
from .rows import Row

_HEAD, _TAIL = 12, 4  # bytes of a record around its data: length and two checksums


class Events:
    """The scalars of an event file: one row each, with ``step`` and ``wall_time``."""

    def __init__(self, path: Path) -> None:
        try:
            from tensorboard.backend.event_processing import event_file_loader
        except ImportError:
            raise UserError(
                f"{path}: TensorBoard's event files need one more package: pip install "
                "'mars-optim[tensorboard]'"
            ) from None
        self.path = path
        self.loader = event_file_loader.EventFileLoader(str(path))
        self.events = 0

    def rows(self, *, final: bool) -> Iterator[Row]:
        """As :meth:`Reader.rows`; an event is written whole."""
        from tensorboard.util import tensor_util

        for event in self.loader.Load():
            self.events += 1
            for value in event.summary.value:
                content = tensor_util.make_ndarray(value.tensor)
                if content.size == 1 and content.dtype.kind in "fiu":
                    found = {
                        "step": event.step,
                        "wall_time": event.wall_time,
                        value.tag: float(content.item()),
                    }
                    yield Row(found, f"{self.path}, event {self.events}")

    @property
    def damage(self) -> str:
        """Damage of the file, if not all of its events could be read."""
        whole, end, size = _records(self.path)
        if end < size:
            return f"is cut short after {whole} events, at byte {end:,} of {size:,}"
        if self.events < whole:
            return f"is damaged after {self.events} of {whole} events"
        return ""


def _records(path: Path) -> tuple[int, int, int]:
    """Whole records, where the last of them ends, and the file's size."""
    size, end, count = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while end + _HEAD <= size:
            file.seek(end)
            (length,) = struct.unpack("<Q", file.read(8))
            after = end + _HEAD + length + _TAIL
            if after > size:
                break
            end, count = after, count + 1
    return count, end, size

"""Packed text, read in bounded memory; what unpacks to absurd sizes is refused."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import UserError

READ = {".gz": gzip.open, ".bz2": bz2.open}
"""Endings that are read as they are."""

OTHERS = {".xz", ".zst", ".zip", ".tar", ".tgz", ".7z", ".rar"}

MOST_TIMES = 200
"""Of its packed size that a source may have. Text has 3 to 10."""

_ALWAYS = 2**26  # bytes that anything may have


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A text file, unpacked as it is read if its ending says that it is packed.

    Raises:
        UserError: if it is damaged, or unpacks to more than 200 times its size.
    """
    unpack: Any = READ.get(path.suffix.lower())
    if unpack is None:
        with path.open("rb") as file:
            yield file
        return
    try:
        with unpack(path, "rb") as packed:
            yield io.BufferedReader(_Bounded(packed, path, path.stat().st_size))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged: {error}; copy it again") from None
    except OSError as error:
        if error.errno is None:  # how bz2 says it
            raise UserError(f"{path} is damaged: {error}; copy it again") from None
        raise


class _Bounded(io.RawIOBase):
    def __init__(self, packed: BinaryIO, path: Path, size: int) -> None:
        self._packed, self._path = packed, path
        self._most = max(_ALWAYS, MOST_TIMES * size)
        self._read = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._read

    def readinto(self, buffer: Any) -> int:
        data = self._packed.read(len(buffer))
        buffer[: len(data)] = data
        self._read += len(data)
        if self._read > self._most:
            raise too_large(self._path)
        return len(data)


def too_large(what: object) -> UserError:
    """The refusal of a source that unpacks to absurd sizes."""
    return UserError(
        f"{what} unpacks to more than {MOST_TIMES} times its size, as no text does: unpack it "
        "first if it is really so"
    )

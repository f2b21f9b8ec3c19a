"""Small files that unpack to large ones are refused in one line and bounded memory."""

from __future__ import annotations

import gzip
import io
import pickle
import resource
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.archives import cifar_parts

MIB = 2**20
ROOM = 700 * MIB  # of address space above what the imports take


class Zeros(io.RawIOBase):
    """So many zeros, of which none is held."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1) -> bytes:
        size = min(self.left, size if size >= 0 else self.left)
        self.left -= size
        return bytes(size)


def cifar(folder: Path, name: str, size: int, kind: bytes = tarfile.REGTYPE) -> Path:
    path = folder / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for part, data in cifar_parts("cifar-10-python").items():
            packed = pickle.dumps(data, protocol=2)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{part}")
            member.size = len(packed)
            if part != name:
                archive.addfile(member, io.BytesIO(packed))
        member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
        member.size, member.type = size, kind
        archive.addfile(member, Zeros(size))
    return path


class Again:
    """Pickles to many copies of one text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> tuple[object, ...]:
        import _codecs

        return _codecs.encode, (self.text, "latin1")


def laughs(folder: Path) -> Path:
    text = "x" * (20 * MIB)
    inner = folder / "cifar-10-batches-py"
    inner.mkdir()
    for part, data in cifar_parts("cifar-10-python").items():
        (inner / part).write_bytes(pickle.dumps(data, protocol=2))
    (inner / "data_batch_3").write_bytes(
        pickle.dumps({b"x": [Again(text) for _ in range(200)]}, protocol=2)
    )
    return inner


def parquet(folder: Path) -> Path:
    indices = pa.array(np.zeros(3000, dtype=np.int32))
    table = pa.table({"text": pa.DictionaryArray.from_arrays(indices, ["x" * (30 * MIB)])})
    pq.write_table(
        table.cast(pa.schema([("text", pa.dictionary(pa.int32(), pa.string()))])),
        folder / "a.parquet",
    )
    return folder / "a.parquet"


def long_line(folder: Path) -> Path:
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "' + bytes(300 * MIB), 1))
    return folder / "a.jsonl.gz"


CIFAR_IS_SMALLER = "unpacks to more than 192 MiB, and CIFAR has 178"
BOMBS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a large part": (
        lambda f: cifar(f, "data_batch_2", 300 * MIB),
        CIFAR_IS_SMALLER,
    ),
    "a large stranger": (
        lambda f: cifar(f, "other", 1200 * MIB),
        CIFAR_IS_SMALLER,
    ),
    "a large header": (
        lambda f: cifar(f, "other", 1200 * MIB, tarfile.XHDTYPE),
        CIFAR_IS_SMALLER,
    ),
    "one text many times": (laughs, "it encodes more than CIFAR has"),
    "a line": (long_line, "MiB"),
    "a dictionary": (parquet, "unpacks to more than 200 times its size"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_bounded_memory_and_one_line(tmp_path: Path, name: str):
    make, words = BOMBS[name]
    source = make(tmp_path)
    command = [sys.executable, "-c", PREPARE, str(source), str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2, ended.stderr
    (line,) = [x for x in ended.stderr.splitlines() if "mars: error" in x]
    assert words in line
    assert len(ended.stderr.splitlines()) <= 3


PREPARE = f"""
import resource, sys
import mars_optim.cli, pyarrow.parquet
import mars_optim.experiment.data.image_sources, mars_optim.experiment.data.token_shards
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + {ROOM}
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
more = ["--tokenizer", "bytes", "--workers", "1"]
sys.exit(mars_optim.cli.main(["prepare", sys.argv[1], "--out", sys.argv[2], *more]))
"""

if not hasattr(resource, "RLIMIT_AS") or not Path("/proc/self/statm").exists():
    pytest.skip("no limits of memory on this system", allow_module_level=True)

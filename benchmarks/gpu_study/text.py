"""DATA for a machine without network: tokens of a part of Linux's source, and wheels.

The text comes from a Debian package, so that it needs no data set's server: equal packages give
equal bytes, and ``text.json`` names the package's version and hash.
"""

from __future__ import annotations

import lzma
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from hashlib import file_digest, sha256
from importlib.metadata import version
from json import dumps
from pathlib import Path
from typing import IO, Any

from mars_optim.errors import UserError as PackageError
from mars_optim.experiment.data import TokenOptions, prepare_tokens
from mars_optim.experiment.data.sources import find_sources
from mars_optim.experiment.tasks.prepared import MANIFEST
from mars_optim.files import write_json

from ..output import UserError
from .task import TEXT, TOKENS

WHEELS = "wheels"
MOST_BYTES = 52_000_000
"""Most bytes of DATA: with the repository it has to fit into one transfer of 64 MiB."""
TEXT_BYTES = 66_000_000
FOLDERS = frozenset(
    "Documentation block crypto fs init io_uring ipc kernel lib mm net security virt".split()
)
SUFFIXES = frozenset((".c", ".h", ".rst", ".txt", ".yaml"))
SHARE = 0.05
"""Share of the files that is for validation."""
PACKAGES = (
    "annotated-types pydantic pydantic-core tomlkit typing-extensions typing-inspection".split()
)
"""Packages that are imported beside torch, numpy and scipy."""
TARGET = "--python-version 3.12 --implementation cp --platform manylinux_2_17_x86_64".split()


def prepare(
    data: Path,
    vocabulary: int,
    *,
    package: str,
    deb: Path | None = None,
    wheels: bool = True,
    most_text: int = TEXT_BYTES,
) -> None:
    """Write tokens, ``text.json`` and wheels; what is there already stays.

    Args:
        data: folder to write.
        vocabulary: of the tokenizer that is trained on the text.
        package: of Debian, with Linux's source in it.
        deb: its file; None to download it.
        wheels: whether to fetch those too.
        most_text: bytes of text that are taken.

    Raises:
        UserError: if the package cannot be had or read, or DATA becomes too large.
    """
    data.mkdir(parents=True, exist_ok=True)
    if not (data / TEXT).exists() or not (data / TOKENS / MANIFEST).exists():
        with tempfile.TemporaryDirectory(prefix="gpu-study-") as folder:
            _tokens(
                data, vocabulary, deb or _download(package, Path(folder)), Path(folder), most_text
            )
    if wheels:
        _wheels(data / WHEELS)
    size = sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
    print(f"{data}: {size / 1e6:.1f} MB")
    if size > MOST_BYTES:
        raise UserError(f"{data} has {size:,} bytes, more than {MOST_BYTES:,}: lower TEXT_BYTES")


def _tokens(data: Path, vocabulary: int, deb: Path, folder: Path, most: int) -> None:
    facts = _facts(deb)
    print(f"reading {facts['package']} {facts['version']}", flush=True)
    jsonl = folder / "linux.jsonl"
    with jsonl.open("w", encoding="utf-8") as out:
        facts |= _write_documents(deb, out, most)
    try:
        sources, _ = find_sources([str(jsonl)])
        options = TokenOptions(vocabulary=vocabulary, share=SHARE)
        print(f"tokens of {facts['bytes'] / 1e6:.1f} MB of text", flush=True)
        manifest = prepare_tokens(sources, data / TOKENS, options, os.cpu_count() or 1)
    except PackageError as error:
        raise UserError(str(error)) from None
    facts["tokens"] = {side: split["tokens"] for side, split in manifest["splits"].items()}
    write_json(data / TEXT, facts)


def _write_documents(deb: Path, out: IO[str], most: int) -> dict[str, Any]:
    """Files in the order of their names' hashes, so that a part of them is a fair sample."""
    found = dict(_files(deb))
    files = size = 0
    for name in sorted(found, key=lambda n: sha256(n.encode()).digest()):
        if size >= most:
            break
        out.write(dumps({"text": found[name]}) + "\n")
        files, size = files + 1, size + len(found[name].encode())
    if not files:
        raise UserError(f"{deb} holds no source of Linux: give a linux-source package")
    return {"folders": sorted(FOLDERS), "files": files, "bytes": size}


def _files(deb: Path) -> Iterator[tuple[str, str]]:
    """The text files of the chosen folders, out of the archive in the package."""
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as outer,
    ):
        for member in outer:
            if not member.isfile() or not member.name.endswith(".tar.xz"):
                continue
            with lzma.open(_content(outer, member)) as unpacked:
                yield from _chosen(unpacked)


def _chosen(archive: Any) -> Iterator[tuple[str, str]]:
    with tarfile.open(fileobj=archive, mode="r|") as inner:
        for member in inner:
            path = Path(member.name)
            folder = path.parts[1] if len(path.parts) > 2 else ""
            if member.isfile() and folder in FOLDERS and path.suffix in SUFFIXES:
                yield member.name, _content(inner, member).read().decode("utf-8", "replace")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(member)
    assert stream is not None  # of a file
    return stream


def _download(package: str, folder: Path) -> Path:
    print(f"downloading {package}", flush=True)
    _call(["apt-get", "download", package], f"the package {package} cannot be had", cwd=folder)
    return next(folder.glob("*.deb"))


def _facts(deb: Path) -> dict[str, Any]:
    shown = ["dpkg-deb", "--show", "--showformat=${Package} ${Version}", str(deb)]
    package, number = _call(shown, f"{deb} is no Debian package").split()
    with deb.open("rb") as file:
        return {
            "package": package,
            "version": number,
            "sha256": file_digest(file, "sha256").hexdigest(),
        }


def _wheels(folder: Path) -> None:
    """Those of the versions that are installed here, for the target's Python."""
    wanted = [f"{name}=={version(name)}" for name in PACKAGES]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *TARGET]
    command += ["--only-binary=:all:", "--dest", str(folder), *wanted]
    _call(command, "the wheels cannot be had (--no-wheels leaves them out)")


def _call(command: list[str], otherwise: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    except FileNotFoundError:
        raise UserError(f"{otherwise}: {command[0]} is not installed; run this on Debian") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"{otherwise}: {last}")
    return done.stdout

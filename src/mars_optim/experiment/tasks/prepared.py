"""A folder that ``mars prepare`` wrote: its manifest, and its files as memory maps."""

from __future__ import annotations

import contextlib
import json
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ...files import whole_file

MANIFEST = "manifest.json"
VERIFIED = "verified.json"
PARTS = "parts"
"""A folder in it, while it is being prepared."""
ASKED = f"{PARTS}/asked.json"
"""The sources and settings, until the manifest has them."""
VERSION = 1

Content = Literal["images", "tokens"]


def is_prepared(folder: Path) -> bool:
    """Whether ``mars prepare`` has worked in this folder, even if not to the end."""
    return any((folder / name).is_file() for name in (MANIFEST, VERIFIED, ASKED))


def read_manifest(
    folder: Path, content: Content | None, where: str = "task.corpus"
) -> dict[str, Any]:
    """The manifest of a prepared folder, whose files are all there and whole.

    A file is read once through against its hash; which were is kept in ``verified.json``, and
    after that size and time of change will do.

    Args:
        folder: that ``mars prepare`` wrote.
        content: what it must hold; None for anything.
        where: the setting that names the folder, for messages.

    Raises:
        ValueError: in one line, naming ``where``, the file, and what mends it.
    """
    path, named = folder / MANIFEST, f"{where} = '{folder}'"
    try:
        manifest: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not folder.is_dir():
            raise ValueError(f"{named} does not exist: `mars prepare` writes it") from None
        raise ValueError(
            f"{named} has no {MANIFEST}: give a folder that `mars prepare` finished (the same "
            "command continues where it stopped)"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{named}: {MANIFEST} cannot be read ({error}); prepare it again"
        ) from None
    version = manifest.get("version") if isinstance(manifest, dict) else None
    if version != VERSION:
        raise ValueError(
            f"{named}: its format is version {version}, and this mars-optim reads {VERSION}: "
            "prepare it again into a new folder"
        )
    if content is not None and manifest.get("content") != content:
        raise ValueError(f"{named} holds {manifest.get('content')}, not {content}")
    check_files(folder, manifest, where)
    return dict(manifest)


def check_files(
    folder: Path, manifest: dict[str, Any], where: str = "task.corpus", *, again: bool = False
) -> None:
    """See that every file is there and is what its hash says.

    Args:
        folder: that holds them.
        manifest: of the folder.
        where: as for :func:`read_manifest`.
        again: read even those through that were already.

    Raises:
        ValueError: naming the file.
    """
    known = {} if again else _verified(folder)
    seen = {}
    for name, facts in manifest["files"].items():
        path, named = folder / name, f"{where} = '{folder}': {name}"
        try:
            status = path.stat()
        except FileNotFoundError:
            raise ValueError(f"{named} is missing; copy it again or prepare it again") from None
        if status.st_size != facts["bytes"]:
            raise ValueError(
                f"{named} has {status.st_size:,} bytes, and the manifest says "
                f"{facts['bytes']:,}: copy it again or prepare it again"
            )
        mark = [facts["sha256"], status.st_size, status.st_mtime_ns]
        if known.get(name) != mark:
            with path.open("rb") as file:
                digest = file_digest(file, "sha256").hexdigest()
            if digest != facts["sha256"]:
                raise ValueError(
                    f"{named} is damaged, its hash differs from the manifest's: copy it again "
                    "or prepare it again"
                )
        seen[name] = mark
    if seen != known:
        with contextlib.suppress(OSError):  # a folder that cannot be written is read every time
            write_whole(folder / VERIFIED, json.dumps(seen, indent=1))


def _verified(folder: Path) -> dict[str, Any]:
    try:
        known = json.loads((folder / VERIFIED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def write_whole(path: Path, text: str) -> None:
    """Write a text file that is there whole or not at all."""
    with whole_file(path, ending=".part") as file:
        file.write(text)


def fingerprint(manifest: dict[str, Any], *keys: str) -> str:
    """Hash of all that a run sees of the data: the files' contents and ``keys``.

    Where the data came from does not count.
    """
    parts = {name: facts["sha256"] for name, facts in sorted(manifest["files"].items())}
    seen = json.dumps([parts, {key: manifest[key] for key in keys}], sort_keys=True)
    return sha256(seen.encode()).hexdigest()


def memory_map(path: Path, dtype: torch.dtype) -> Tensor:
    """A file as a 1-D tensor, read as it is used; what is written to it stays in memory."""
    count = path.stat().st_size // dtype.itemsize
    return torch.from_file(str(path), shared=False, size=count, dtype=dtype)

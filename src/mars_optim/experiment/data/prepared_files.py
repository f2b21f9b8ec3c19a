"""Files that are there whole or not at all, with their size and hash."""

from __future__ import annotations

import json
import os
import shutil
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

from ...errors import UserError
from ...files import beside_of
from ..tasks.prepared import ASKED, MANIFEST, PARTS, VERIFIED, VERSION, write_whole


class HashedFile:
    """A binary file under a temporary name, which gets its own when the block ends well."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = beside_of(path, ".part")
        self._file = self.part.open("xb")  # a new one: no link is followed
        self._digest = sha256()
        self._bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``."""
        self._file.write(data)
        self._digest.update(data)
        self._bytes += len(data)

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest says of it: ``bytes`` and ``sha256``."""
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            self.part.replace(self.path)
        else:
            self.part.unlink(missing_ok=True)


def begin(out: Path, asked: dict[str, Any]) -> None:
    """Take a new or empty folder for this work, or one in which the same was begun.

    Args:
        out: the folder, held by this process.
        asked: the sources and settings.

    Raises:
        UserError: if it holds anything else, which is left as it is.
    """
    path, text = out / ASKED, json.dumps(asked, indent=1)
    if path.exists():
        if path.read_text(encoding="utf-8") != text:
            raise UserError(
                f"--out {out} holds unfinished work on other sources or settings; give a new "
                "folder, or delete it"
            )
    elif others := {p.name for p in out.iterdir()} - {".lock", PARTS}:
        raise UserError(
            f"--out {out} holds other files, such as {min(others)}; give a new or an empty folder"
        )
    path.parent.mkdir(exist_ok=True)
    for folder in (out, path.parent):  # what a command that was killed left half written
        for leftover in folder.glob("*.part"):
            leftover.unlink()
    if not path.exists():
        write_whole(path, text)


def clear(out: Path) -> None:
    """Remove what only an unfinished folder needs."""
    shutil.rmtree(out / PARTS, ignore_errors=True)


def finish(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest, which says that all else is there. Returns it with its version."""
    manifest = {"version": VERSION, **manifest}
    files = manifest["files"].items()
    marks = {
        name: [facts["sha256"], facts["bytes"], (folder / name).stat().st_mtime_ns]
        for name, facts in files
    }
    write_whole(folder / VERIFIED, json.dumps(marks, indent=1))
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
    return manifest


def finished(folder: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest, if this folder was prepared in just this way; None if it is still to be done.

    Args:
        folder: to prepare into.
        asked: the sources and settings, as the manifest keeps them under "asked".

    Raises:
        UserError: if it holds something else, which is left as it is.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise UserError(f"--out {folder} is a file; give a folder")
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        same = manifest["version"] == VERSION and manifest["asked"] == asked
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise UserError(
            f"--out {folder} holds data that were prepared from something else or in another way; "
            "give a new folder"
        )
    return manifest

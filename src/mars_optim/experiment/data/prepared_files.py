"""Files that are there whole or not at all, with their size and hash."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...files import whole_file
from ..records.lock import folder_lock
from ..tasks.prepared import ASKED, MANIFEST, PARTS, VERIFIED, VERSION, Content, write_whole


class HashedFile:
    """A binary file under a temporary name, which gets its own when the block ends well."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole = whole_file(path, "wb", ending=".part")
        self._digest = sha256()
        self._bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``."""
        self._file.write(data)
        self._digest.update(data)
        self._bytes += len(data)

    @property
    def facts(self) -> dict[str, Any]:
        """The file's entry in the manifest: ``bytes`` and ``sha256``."""
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}

    def __enter__(self) -> HashedFile:
        self._file = self._whole.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._whole.__exit__(*error)


def prepare_folder(
    out: Path, content: Content, asked: dict[str, Any], work: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Do ``work`` in a folder of its own, once. Returns the manifest, which is written last.

    Args:
        out: the folder.
        content: of it.
        asked: the sources and settings.
        work: writes the files and returns the rest of the manifest.

    Raises:
        UserError: if the folder holds anything else, which is left as it is.
    """
    manifest = _finished(out, asked)
    if manifest is None:
        out.mkdir(parents=True, exist_ok=True)
        with folder_lock(out):
            _begin(out, asked)
            manifest = {"version": VERSION, "content": content, "asked": asked, **work()}
            marks = {
                name: [facts["sha256"], facts["bytes"], (out / name).stat().st_mtime_ns]
                for name, facts in manifest["files"].items()
            }
            write_whole(out / VERIFIED, json.dumps(marks, indent=1))
            write_whole(out / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
    shutil.rmtree(out / PARTS, ignore_errors=True)
    return manifest


def _begin(out: Path, asked: dict[str, Any]) -> None:
    """Take a new or empty folder, or one in which the same was begun."""
    path, text = out / ASKED, json.dumps(asked, indent=1)
    begun = path.exists()
    if begun and path.read_text(encoding="utf-8") != text:
        raise UserError(
            f"--out {out} holds unfinished work on other sources or settings; give a new folder, "
            "or delete it"
        )
    others = {p.name for p in out.iterdir()} - {".lock", PARTS}
    if others and not begun:
        raise UserError(
            f"--out {out} holds other files, such as {min(others)}; give a new or an empty folder"
        )
    path.parent.mkdir(exist_ok=True)
    for folder in (out, path.parent):  # what a command that was killed left half written
        for leftover in folder.glob("*.part"):
            leftover.unlink()
    write_whole(path, text)


def _finished(out: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest, if this folder was prepared in just this way; None if it is to be done."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; give a folder")
    path = out / MANIFEST
    if not path.exists():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        same = manifest["version"] == VERSION and manifest["asked"] == asked
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise UserError(f"--out {out} holds data from other sources or settings: give a new folder")
    return manifest

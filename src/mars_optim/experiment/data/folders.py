"""The files of a folder, links followed once; what is left out is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path


def files_below(root: Path) -> tuple[list[Path], list[Path]]:
    """All files in a folder and those below it, hidden ones left out, in the order of their names.

    Links to folders are followed, but for those that lead to what is read already.

    Returns:
        The files, and the links that are not followed or lead nowhere.
    """
    files: list[Path] = []
    unread: list[Path] = []
    links: list[Path] = []
    seen = {root.resolve()}
    todo = [root]
    while todo or links:
        folder = todo.pop() if todo else links.pop(0)
        if folder.is_symlink() and folder != root:
            real = folder.resolve()
            if real in seen or root.resolve().is_relative_to(real):
                unread.append(folder)
                continue
            seen.add(real)
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_file():
                files.append(path)
            elif not path.is_dir():
                unread.append(path)
            elif path.is_symlink():
                links.append(path)
            elif path.resolve() not in seen:
                seen.add(path.resolve())
                todo.append(path)
    return sorted(files), sorted(unread)


def told(left_out: Iterable[Path], read: str = "text, JSONL, Parquet or .bin") -> str:
    """What is left out, in a line; empty if nothing is.

    Args:
        left_out: files and links.
        read: the kinds that are not.
    """
    paths = list(left_out)
    if not paths:
        return ""
    kinds = Counter(p.suffix.lower() or "no ending" for p in paths)
    kinds_told = ", ".join(f"{n} of {kind}" for kind, n in kinds.most_common(5))
    one = "1 file or link that is" if len(paths) == 1 else f"{len(paths)} files or links that are"
    way = "; give one by its name to read it as text" if "text" in read else ""
    return f"left out {one} no {read} ({kinds_told}), such as {paths[0]}{way}"

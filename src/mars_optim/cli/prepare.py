"""``mars prepare``: sources as they are found -> a folder that a plan's task reads."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from ..records import UserError


def prepare(
    *sources: str,
    out: Path,
    label: str = "",
) -> None:
    """Make data ready for training: images into a folder of bytes with a manifest.

    Parameters
    ----------
    sources:
        Parquet files with images, or folders of them: names begin with train, test or valid.
    out:
        Folder to write into.
    label:
        Column of the labels; by default label, labels or fine_label.
    """
    from ..data.images import prepare_images, split_of
    from ..data.parquet import class_names, image_batches

    files = _files(sources)
    named = [(split_of(path), path) for path in files]
    asked = {"sources": [path.name for path in files], "label": label}
    manifest = prepare_images(
        [(split, partial(image_batches, path, label)) for split, path in named if split],
        out,
        asked,
        class_names(files[0], label),
        lambda images: print(f"\r{images:,} images", end="", file=sys.stderr),
    )
    counts = {split: facts["images"] for split, facts in manifest["splits"].items()}
    print(f"\n{out}: {counts['train']:,} training and {counts['valid']:,} validation images")


def _files(sources: tuple[str, ...]) -> list[Path]:
    files: list[Path] = []
    for source in sources:
        path = Path(source)
        if not path.exists():
            raise UserError(f"{source} does not exist")
        files += sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise UserError("give one source at least")
    return files

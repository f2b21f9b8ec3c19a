"""The published recipes, shrunken so that they train in a second, and little data for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mars_optim.experiment.data.images import prepare_images

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = "gpt2-small-openwebtext"
TINY = {
    "gpt": dict(context=8, layers=1, width=8, heads=1, batch=2, vocabulary=0),
    "images": dict(width=2, batch=4),
}
QUICK = dict(accumulation=2, steps=10, evaluations=2, eval_tokens=64, precision="no")


def little_data(folder: Path) -> dict[str, Path]:
    """A little text, and a prepared folder of little images, by kind of task."""
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog; " * 600)
    rng = np.random.default_rng(0)

    def images() -> Any:
        labels = np.arange(24) % 3
        yield rng.integers(0, 255, (24, 8, 8, 3)).astype(np.uint8), labels.astype(np.int64)

    prepare_images([("train", images), ("valid", images)], folder / "images", {"sources": "made"})
    return {"gpt": folder / "text.txt", "images": folder / "images"}


def shrunken(data: dict[str, Path], name: str, **more: Any) -> list[str]:
    """The words that train a shrunken version of a recipe."""
    kind = "images" if name.startswith("resnet") else "gpt"
    task = TINY[kind] | {"corpus": str(data[kind])}
    keys = {f"task.{k}": v for k, v in task.items()}
    keys |= {f"training.{k}": v for k, v in QUICK.items()} | more
    sets = [part for k, v in keys.items() for part in ("--set", f"{k}={v}")]
    return ["train", str(RECIPES / f"{name}.toml"), *sets]

"""Which program the runs are written for."""

from __future__ import annotations

from pathlib import Path

from .scalars import Bridge
from .tensorboard import TensorBoard
from .trackio import Trackio
from .wandb import WandB


def make_bridge(name: str, out: Path, project: str) -> Bridge:
    """The bridge to a program.

    Args:
        name: "tensorboard", "trackio" or "wandb".
        out: folder to write to.
        project: name that the runs go under, where the program has such.

    Raises:
        UserError: if the program is not installed.
    """
    if name == "tensorboard":
        return TensorBoard(out)
    return Trackio(out, project) if name == "trackio" else WandB(out, project)

"""One run: a frozen spec in, rows and an outcome on disk."""

from .arms import arm_groups, build_optimizer, state_bytes
from .loop import train
from .reading import gradient_scale
from .schedule import lr_factor, scheduled

__all__ = [
    "arm_groups",
    "build_optimizer",
    "gradient_scale",
    "lr_factor",
    "scheduled",
    "state_bytes",
    "train",
]

"""One run: a frozen spec in, rows and an outcome on disk."""

from .arms import build_optimizer, state_bytes
from .loop import train
from .schedule import lr_factor

__all__ = ["build_optimizer", "lr_factor", "state_bytes", "train"]

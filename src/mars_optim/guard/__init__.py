"""Watches a run against its AdamW history, and goes back to AdamW. torch and nothing heavier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .baseline import Baseline
from .detector import Alarm, Detector
from .settings import GuardSettings

if TYPE_CHECKING:
    from .baseline_recorder import BaselineRecorder
    from .guard import Guard
    from .rollback import Rollback

__all__ = [
    "Alarm",
    "Baseline",
    "BaselineRecorder",
    "Detector",
    "Guard",
    "GuardSettings",
    "Rollback",
]


def __getattr__(name: str) -> Any:
    # The limits are plain numbers, which reports read without loading torch.
    if name in ("Guard", "Rollback"):
        from . import guard

        return getattr(guard, name)
    if name == "BaselineRecorder":
        from .baseline_recorder import BaselineRecorder

        return BaselineRecorder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

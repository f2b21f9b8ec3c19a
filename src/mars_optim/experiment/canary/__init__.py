"""Stage 2 of the way into production: a canary from the AdamW checkpoint."""

from .canary import canary
from .production_checkpoint import AdamWCheckpoint, read_checkpoint
from .result import CanaryResult
from .settings import CanarySettings

__all__ = ["AdamWCheckpoint", "CanaryResult", "CanarySettings", "canary", "read_checkpoint"]

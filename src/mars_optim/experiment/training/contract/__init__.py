"""The contract of any optimizer, tried on a tiny problem before the first run."""

from .check import check_optimizer
from .finding import BESIDE, BLOCKS, Finding

__all__ = ["BESIDE", "BLOCKS", "Finding", "check_optimizer"]

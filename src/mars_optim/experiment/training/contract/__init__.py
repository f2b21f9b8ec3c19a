"""The contract of any optimizer, tried on a tiny problem before the first run."""

from .check import check_optimizer
from .flaw import BESIDE, BLOCKS, Flaw

__all__ = ["BESIDE", "BLOCKS", "Flaw", "check_optimizer"]

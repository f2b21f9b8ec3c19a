"""Numbers: records on disk -> tokens saved with an interval, cost, verdict. No torch."""

from .analyse import analyse
from .model import Analysis, ArmResult, Verdict
from .stats import Interval

__all__ = ["Analysis", "ArmResult", "Interval", "Verdict", "analyse"]

"""Numbers: records on disk -> tokens saved with an interval, cost, verdict. No torch."""

from .analyse import analyse
from .conditions import Condition, Stage
from .model import Analysis, ArmResult, Finding, Verdict
from .stages import next_stage, stages
from .stats import Interval

__all__ = [
    "Analysis",
    "ArmResult",
    "Condition",
    "Finding",
    "Interval",
    "Stage",
    "Verdict",
    "analyse",
    "next_stage",
    "stages",
]

"""Numbers: records on disk -> tokens saved with an interval, cost, verdict. No torch."""

from .analyse import analyse
from .conditions import Condition, Stage
from .folder import Experiment, Survey, survey
from .model import Analysis, ArmResult, Finding, Shown, Verdict
from .stages import next_stage, stages
from .stats import Interval

__all__ = [
    "Analysis",
    "ArmResult",
    "Condition",
    "Experiment",
    "Finding",
    "Interval",
    "Shown",
    "Stage",
    "Survey",
    "Verdict",
    "analyse",
    "next_stage",
    "stages",
    "survey",
]

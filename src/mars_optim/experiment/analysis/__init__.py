"""Numbers: records on disk -> tokens saved with an interval, cost, verdict. No torch."""

from .analyse import analyse
from .arm_model import ArmResult
from .conditions import Condition, RolloutStep
from .folder import Experiment, Survey, survey
from .happened import went_back
from .model import Analysis, Finding, Shown, Verdict
from .rollout import next_step, rollout_steps
from .stats import Interval

__all__ = [
    "Analysis",
    "ArmResult",
    "Condition",
    "Experiment",
    "Finding",
    "Interval",
    "RolloutStep",
    "Shown",
    "Survey",
    "Verdict",
    "analyse",
    "next_step",
    "rollout_steps",
    "survey",
    "went_back",
]

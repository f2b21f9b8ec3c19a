"""Decisions before the first run: plan, arms, task, training."""

from .arms import ARMS, Arm
from .execution import ExecutionOptions
from .plan import Plan
from .run_spec import RunSpec

__all__ = ["ARMS", "Arm", "ExecutionOptions", "Plan", "RunSpec"]

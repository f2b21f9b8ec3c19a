"""What a pilot leaves on disk: the plan, one folder a run, append-only. Standard library only."""

from .arms import ARMS, Arm
from .engine import Engine
from .errors import UserError, need
from .plan import Plan
from .run import Failure, Outcome, Run, RunWriter, read_run, read_runs
from .spec import RunSpec

__all__ = [
    "ARMS",
    "Arm",
    "Engine",
    "Failure",
    "Outcome",
    "Plan",
    "Run",
    "RunSpec",
    "RunWriter",
    "UserError",
    "need",
    "read_run",
    "read_runs",
]

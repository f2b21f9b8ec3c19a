"""Many runs: equal tuning for every arm, a ladder of budgets, paired seeds."""

from .run import run_pilot

__all__ = ["run_pilot"]

"""Records of a pilot on disk: one folder a run, append-only."""

from .run import Failure, Outcome, Run, RunWriter, read_run, read_runs

__all__ = ["Failure", "Outcome", "Run", "RunWriter", "read_run", "read_runs"]

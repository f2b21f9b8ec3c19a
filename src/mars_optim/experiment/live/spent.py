"""Cost of a pilot so far."""

from __future__ import annotations

from dataclasses import dataclass

from ..analysis.cost import pilot_price
from ..pilot.status import Snapshot
from ..records import Run
from .runs_table import number


@dataclass(frozen=True, slots=True)
class Spent:
    """Cost so far, of ended runs and of those under way.

    Args:
        seconds: of training, as if runs went one after another.
        tokens: trained on.
        money: at the price of the pilot's machine; None without a price.
    """

    seconds: float
    tokens: int
    money: float | None


def spent(snapshot: Snapshot) -> Spent:
    """Sum up the runs; a branch counts without its trunk, a try that failed not at all."""
    each = [_of_run(run) for run in snapshot.runs]
    seconds, tokens = sum(s for s, _ in each), sum(t for _, t in each)
    per_hour = pilot_price(snapshot.plan.cost)
    return Spent(seconds, round(tokens), per_hour * seconds / 3600 if per_hour else None)


def _of_run(run: Run) -> tuple[float, float]:
    """Seconds and tokens of one run."""
    if run.outcome:
        return run.outcome.seconds, run.own_tokens
    last = run.rows[-1] if run.rows else {}
    step, seconds, tokens = (last.get(key) for key in ("step", "seconds", "tokens"))
    if not (number(step) and number(seconds) and number(tokens) and step):
        return 0.0, 0.0
    own = max(0, step - run.spec.start) / step  # rows of a branch count its trunk's steps, too
    return own * seconds, own * tokens

"""What a pilot has cost so far."""

from __future__ import annotations

from dataclasses import dataclass

from ..analysis.cost import pilot_price
from ..pilot.status import Snapshot
from ..records import Run


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
    step = last.get("step") or 0
    # rows of a branch count from its trunk's first step on
    own = max(0, step - run.spec.start) / step if step else 0.0
    return own * (last.get("seconds") or 0.0), own * (last.get("tokens") or 0)

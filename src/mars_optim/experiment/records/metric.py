"""The metric that decides, of a run: as a cost, the less the better."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ..plan.decision import LOSS, DecisionPlan
from ..plan.task import ROW_KEYS
from .run import Outcome, Run


def cost(run: Run, decision: DecisionPlan) -> float | None:
    """The deciding metric at a run's end, negated if more is better.

    None if the run diverged or has not ended, or its last evaluation gave no number.
    """
    if decision.metric == LOSS:
        return run.final_loss
    if run.outcome is None or run.outcome.status == "diverged":
        return None
    value = last_scores(run).get(decision.metric)
    return None if value is None else decision.sign * value


def cost_of(outcome: Outcome, decision: DecisionPlan) -> float | None:
    """As :func:`cost`, of an outcome whose rows are not at hand."""
    if decision.metric == LOSS or outcome.status == "diverged":
        return outcome.final_loss
    value = outcome.scores.get(decision.metric)
    return None if value is None else decision.sign * value


def last_scores(run: Run) -> dict[str, float]:
    """Scores of a run's last evaluation, beside the loss."""
    if run.outcome and run.outcome.scores:
        return run.outcome.scores
    last: dict[str, Any] = next((row for row in reversed(run.rows) if "valid_loss" in row), {})
    found = {key: value for key, value in last.items() if key not in ROW_KEYS}
    return {key: float(v) for key, v in found.items() if isinstance(v, int | float)}


def judged(run: Run, decision: DecisionPlan) -> Run:
    """The run with the cost in the place of its losses, which join its scores.

    A run without the metric has status "finished" and no loss then.
    """
    if decision.metric == LOSS or run.outcome is None:
        return run
    loss = run.outcome.final_loss
    scores = last_scores(run) if loss is None else {**last_scores(run), LOSS: loss}
    rows = [_judged(row, decision) for row in run.rows]
    outcome = replace(run.outcome, final_loss=cost(run, decision), scores=scores)
    return replace(run, outcome=outcome, rows=rows)


def _judged(row: dict[str, Any], decision: DecisionPlan) -> dict[str, Any]:
    """A row whose validation loss is the cost; of training nothing changes."""
    others = {key: value for key, value in row.items() if key != "valid_loss"}
    value = row.get(decision.metric)
    if not isinstance(value, int | float) or not math.isfinite(value):
        return others
    return others | {"valid_loss": decision.sign * value}


def written(runs: list[Run]) -> list[str]:
    """The metrics that any of these runs has."""
    names = {name for run in runs for name in last_scores(run)}
    loss = [LOSS] if any(run.final_loss is not None for run in runs) else []
    return [*loss, *sorted(names - {LOSS})]

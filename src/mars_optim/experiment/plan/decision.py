"""The metric and the rule that decide, fixed before the runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ...errors import UserError, did_you_mean
from .table import Number, option, table
from .task import ROW_KEYS, CommandPlan, Kinds
from .training import TrainingPlan

LOSS = "loss"
"""The validation loss, which decides unless another metric is named."""

BUILT_IN = {"gpt": (LOSS, "bits_per_byte"), "images": (LOSS, "accuracy")}
"""Scores that the evaluations of the built-in tasks give."""

SHARES = {("images", "accuracy")}
"""Metrics that are known to lie between 0 and 1."""

LEAST_EVALUATIONS = 10
"""Evaluations that a run needs, so that the time to a target can be read between them."""


@table
class DecisionPlan:
    """The rule, fixed before the runs."""

    min_saving: Number = option(
        0.05, "least share of tokens saved that pays for a switch", ge=-1.0, le=0.99
    )
    confidence: Number = option(0.95, "of the interval", gt=0.5, le=0.999)
    looks: Literal["once", "every-pair"] = option(
        "once",
        'at the verdict: "once", after all seeds, or "every-pair", after each from the third on, '
        "with an interval that holds at every look: no seed is run after the verdict is clear",
    )
    metric: str = option(
        LOSS, 'what decides: the validation "loss", or another name that evaluations write'
    )
    direction: Literal["", "down", "up"] = option(
        "",
        'where the metric is better: "down" or "up"; with target = (a number) as well, tokens to '
        "this value are what is compared",
    )
    target: Number | None = option(None, "a value of the metric to be reached")

    def __post_init__(self) -> None:
        """The loss goes down; of another metric it must be said.

        Raises:
            UserError: if it is not.
        """
        if self.metric in ("", "valid_loss"):
            raise UserError(
                f"decision.metric = {self.metric!r}: the name of the validation loss is {LOSS!r}"
            )
        if self.metric in ROW_KEYS:
            raise UserError(
                f"decision.metric = {self.metric!r} is the name of a column that every run records "
                f"by itself ({', '.join(sorted(ROW_KEYS))}): write the metric under another name"
            )
        if self.metric != LOSS and not self.direction:
            raise UserError(
                f"decision.direction must be given for decision.metric = {self.metric!r}: 'up' if "
                "more of it is better, 'down' if less is"
            )
        if self.metric == LOSS and self.direction == "up":
            raise UserError(
                "decision.direction = 'up' does not fit the loss, of which less is better: "
                "leave it out"
            )
        object.__setattr__(self, "direction", self.direction or "down")

    @property
    def goal(self) -> float | None:
        """The target as a cost; None without one."""
        return None if self.target is None else self.sign * self.target

    @property
    def sign(self) -> int:
        """Times the metric it is a cost: the less, the better."""
        return -1 if self.direction == "up" else 1


def with_metric(task: Kinds, decision: DecisionPlan) -> Kinds:
    """The task; a command's metric that decides is one of those that are read.

    Raises:
        UserError: if it is the column of the loss.
    """
    if not isinstance(task, CommandPlan) or decision.metric in (LOSS, *task.score_keys):
        return task
    if decision.metric == task.valid_key:
        raise UserError(
            f"decision.metric = {decision.metric!r} is task.valid_key, the name of the "
            "validation loss: give task.valid_key another name (the file need not have it), "
            "or leave decision.metric out"
        )
    return replace(task, score_keys=(*task.score_keys, decision.metric))


def check_metric(decision: DecisionPlan, task: Kinds, training: TrainingPlan) -> None:
    """Check what is known of a metric before any run.

    Raises:
        UserError: for a metric that the task has not, a target that it cannot take, or too few
            evaluations to see when the target is reached.
    """
    known = BUILT_IN.get(task.kind)
    if known and decision.metric not in known:
        raise UserError(
            f"decision.metric = {decision.metric!r} is not written by task.kind = "
            f"{task.kind!r}; known: {', '.join(known)}{did_you_mean(decision.metric, known)}"
        )
    target = decision.target
    if target is None:
        return
    if (task.kind, decision.metric) in SHARES and not 0 < target <= 1:
        raise UserError(
            f"decision.target = {target:g} must be above 0 and at most 1 for "
            f"{decision.metric}: 75 % is 0.75"
        )
    ours = not isinstance(task, CommandPlan) and task.kind != "imported"
    if ours and training.evaluations < LEAST_EVALUATIONS:
        raise UserError(
            f"training.evaluations = {training.evaluations} must be at least "
            f"{LEAST_EVALUATIONS} with decision.target, whose time is read between "
            "evaluations; 50 are better"
        )

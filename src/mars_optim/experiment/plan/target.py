"""The job that is paid for, at whose size and length the gain is forecast."""

from __future__ import annotations

from dataclasses import fields

from ...errors import UserError
from .decision import LOSS, DecisionPlan
from .table import Number, option, table


@table
class TargetPlan:
    """The model to be trained in the end. The pilot's sizes and budgets tell the gain there."""

    parameters: Number = option(
        0.0, "of the model, counted as the pilot's are (embeddings with them); 0 for no target",
        ge=0.0, le=1e16,
    )  # fmt: skip
    tokens: Number = option(0.0, "that it will be trained on", ge=0.0, le=1e18)
    batch: Number = option(
        0.0, "tokens in one of its optimizer steps; 0 if not known", ge=0.0, le=1e12
    )
    pilot_parameters: Number = option(
        0.0, "of the pilot's own model; 0 for what its runs record", ge=0.0, le=1e16, sparse=True
    )
    pilot_tokens_per_step: Number = option(
        0.0, "of the pilot's own steps; 0 for what its runs record", ge=0.0, le=1e12, sparse=True
    )

    def __bool__(self) -> bool:
        """Whether there is one."""
        return self.parameters > 0


def check_target(
    target: TargetPlan, decision: DecisionPlan, planned_tokens: float, *, models: bool
) -> None:
    """Check what no single key of the target can tell.

    Args:
        target: to check.
        decision: of the plan.
        planned_tokens: of the job whose cost is told; 0 if not known.
        models: whether the pilot has several.

    Raises:
        UserError: naming the key.
    """
    for key, other in (("parameters", "tokens"), ("tokens", "parameters"), ("batch", "tokens")):
        if getattr(target, key) and not getattr(target, other):
            raise UserError(
                f"target.{key} = {getattr(target, key):g} needs target.{other} as well, such as "
                f"target.{other} = {2.4e10 if other == 'tokens' else 1.2e9:g}"
            )
    for key in (f.name for f in fields(target)):
        if 0 < getattr(target, key) < 1:
            raise UserError(
                f"target.{key} = {getattr(target, key):g} must be a number of 1 or more, such as "
                "1.2e9; 0 for none"
            )
    if models and target.pilot_parameters:
        raise UserError(
            f"target.pilot_parameters = {target.pilot_parameters:g} describes one model, and "
            "scale has several: leave it out, the runs record the parameters of each"
        )
    if target.batch > target.tokens:
        raise UserError(
            f"target.batch = {target.batch:g} must be at most target.tokens = "
            f"{target.tokens:g}: count it in tokens, not in windows"
        )
    if target and (decision.metric != LOSS or decision.target is not None):
        key = "metric" if decision.metric != LOSS else "target"
        raise UserError(
            f"target.parameters = {target.parameters:g} cannot be combined with "
            f"decision.{key} = {getattr(decision, key)!r}: the forecast is of the loss at the "
            "end of runs; leave one of them out"
        )
    if target and planned_tokens not in (0.0, target.tokens):
        raise UserError(
            f"cost.planned_tokens = {planned_tokens:g} must equal target.tokens = "
            f"{target.tokens:g}, since both describe the planned job; leave "
            "cost.planned_tokens out"
        )

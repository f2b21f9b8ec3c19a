"""A planned pilot's chance of a forecast for its target, before anything is run."""

from __future__ import annotations

from collections.abc import Mapping

from ..plan import Plan
from ..plan.cost import CostPlan
from ..scaling.design import SHORT, lack_of

SIGN = (
    "At a short length a gain can have the wrong sign, not only the wrong size: mars-adamw needed "
    "14 % more tokens than adamw at 3 tokens per parameter and 4 % more at 12 (119 k parameters, "
    "docs/size-and-length.md); at 130 M, in others' sweeps, it lost 0.008 nats at 20 and gained "
    "0.013 at 40"
)
"""Evidence for a warning: gains can change with length."""

_NOT_TOLD = (
    "The forecast at the target will be refused: the runs do not record the parameters "
    "of their model or the tokens of a step: set target.pilot_parameters and "
    "target.pilot_tokens_per_step."
)


def target_warnings(plan: Plan, sizes: Mapping[str, tuple[float, float]]) -> list[str]:
    """Why the forecast would be refused, and how much shorter the pilot is than its target.

    Args:
        plan: with a target.
        sizes: of each of its sizes, parameters and tokens of a step.
    """
    target, comparison = plan.target, plan.comparison
    mine, base, steps = set(), set(), []
    for size in plan.sizes():
        recorded, counted = sizes[size.name]
        parameters = target.pilot_parameters or recorded
        per_step = target.pilot_tokens_per_step or counted
        if not parameters or per_step == 1:
            return [_NOT_TOLD]
        steps.append(size.steps(1.0))
        mine.add((parameters, size.steps(1.0) * per_step))
        base |= {(parameters, size.steps(b) * per_step) for b in (1.0, *plan.ladder)}
    found = _too_short(plan, max(tokens / n for n, tokens in mine), max(steps))
    names = comparison.candidate, comparison.baseline
    lacking = lack_of(names, sorted(mine), sorted(base), target.parameters, target.tokens)
    if lacking:
        found.append(
            f"The forecast at the target will be refused: {lacking.sentence}. Add sizes "
            "and lengths by tables such as [scale.large] with width, and [scale.long] "
            "with steps."
        )
    return found


def job_warnings(plan: Plan, tokens_per_step: int, step_seconds: float) -> list[str]:
    """Whether a pilot without a target is much shorter than the job whose cost is told.

    Args:
        plan: without a target; its ``cost`` says the job's tokens or hours, if anything does.
        tokens_per_step: of the pilot's own size; 1 if not known.
        step_seconds: of the candidate's steps, by the probe; 0 if not known.
    """
    cost, steps = plan.cost, max(size.steps(1.0) for size in plan.sizes())
    hours = steps * step_seconds / 3600.0
    job = cost.planned_tokens or cost.tokens_per_hour * cost.planned_hours
    if job and tokens_per_step > 1:
        times, what = job / (steps * tokens_per_step), f"{job:.3g} tokens"
    elif cost.planned_hours != CostPlan().planned_hours and hours > 0.0:
        times, what = cost.planned_hours / hours, f"{cost.planned_hours:g} hours"
    else:
        return []
    if times <= SHORT:
        return []
    return [
        (
            f"Much shorter than the job: its {what} are {times:,.0f} times the longest run of "
            f"{plan.comparison.candidate}. {SIGN}. Set [target] to the job's parameters and "
            "tokens: the report then has a forecast, and names the runs that it needs."
        )
    ]


def _too_short(plan: Plan, length: float, steps: int) -> list[str]:
    """Reasons why the candidate's longest runs are too short for the target."""
    target, name = plan.target, plan.comparison.candidate
    short = []
    if target.tokens / target.parameters > SHORT * length:
        short.append(
            f"{length:.3g} tokens per parameter, the target {target.tokens / target.parameters:.3g}"
        )
    if target.batch and target.tokens / target.batch > SHORT * steps:
        short.append(f"{steps:,} steps, the target {target.tokens / target.batch:,.0f}")
    if not short:
        return []
    return [
        f"Much shorter than the target: {name} is run for at most {' and for '.join(short)}. "
        f"{SIGN}. Add a longer budget, [scale.long] with steps."
    ]

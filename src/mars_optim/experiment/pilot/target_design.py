"""What a planned pilot can tell of its target, before anything is run."""

from __future__ import annotations

from collections.abc import Mapping

from ..plan import Plan
from ..scaling.design import lack_of

SHORT = 4.0
"""Times shorter than the target that are worth a warning: over such a factor signs have turned."""

_NOT_TOLD = (
    "The forecast at the target will be refused: the runs do not tell the parameters of their "
    "model, or the tokens of a step: set target.pilot_parameters and target.pilot_tokens_per_step."
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
            f"The forecast at the target will be refused: {lacking.sentence}. Sizes and lengths "
            "are added by tables such as [scale.large] with width, and [scale.long] with steps."
        )
    return found


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
        "At a short length a gain can have the wrong sign, not only the wrong size: add a longer "
        "budget, [scale.long] with steps."
    ]

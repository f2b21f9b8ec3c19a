"""The action in one line: what is to be done, and who decides it."""

from __future__ import annotations

from ...analysis import Analysis
from ...analysis.action import Action
from .. import numbers
from ..messages import Messages


def action_line(analysis: Analysis, made: Action, say: Messages) -> str:
    """One sentence with its numbers.

    Args:
        analysis: of a pilot, for the currency.
        made: of it.
        say: texts of the language.
    """
    return say(f"action.{made.code}", **made.values, cost=_cost(analysis, made, say))


def _cost(analysis: Analysis, made: Action, say: Messages) -> str:
    """Time and, at a price, money."""
    if made.hours is None:
        return say("action.cost-unknown")
    time = say.duration(3600 * made.hours)
    if made.money is None:
        return time
    return say(
        "action.cost", time=time, money=numbers.money(made.money, analysis.plan.cost.currency)
    )

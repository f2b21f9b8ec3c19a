"""Forecast of the gain on the job that is paid for, from a pilot's own runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ...errors import UserError
from ..plan import Plan
from ..scaling.answer import ArmForecast, Forecast, forecast
from ..scaling.fan import Fan, fan
from ..scaling.forecast import Posterior, log_ratios, posterior
from ..scaling.table import Table, table
from .compared import Comparison
from .pilot_rows import PilotRows, rows_of
from .stats import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class AtTarget:
    """The forecast at the plan's target.

    Args:
        arms: by name, the baseline apart; a ratio or a refusal each.
        one_run: the ratios are those of one more run of each, for no seed is repeated.
        forms: weights of the law's forms.
        log_ratio: of the candidate, at the plan's confidence; None if refused.
        fan: of the candidate; None if refused.
    """

    arms: dict[str, ArmForecast]
    one_run: bool = False
    forms: dict[str, float] = field(default_factory=dict)
    log_ratio: Interval | None = None
    fan: Fan | None = None


def at_target(plan: Plan, sizes: Sequence[Comparison], *, trusted: bool) -> AtTarget | None:
    """The forecast from a pilot's runs; None if its plan has no target.

    Args:
        plan: of the pilot.
        sizes: its runs, sorted.
        trusted: whether they are evidence at all.
    """
    if not plan.target:
        return None
    try:
        if not trusted:
            raise UserError(
                "the verdict does not trust these runs, so they say nothing about any size"
            )
        return _told(plan, rows_of([(plan, sizes)]))
    except UserError as error:
        others = (name for name in plan.arms if name != plan.comparison.baseline)
        return AtTarget(arms={name: ArmForecast(None, str(error), None) for name in others})


def _told(plan: Plan, rows: PilotRows) -> AtTarget:
    there, candidate = (plan.target.parameters, plan.target.tokens), plan.comparison.candidate
    known, found, told = foretold(rows, plan.comparison.baseline, *there)
    absent = ArmForecast(None, f"{candidate} has no finished run", None)
    arms = {candidate: absent, **told.arms}
    if arms[candidate].token_ratio is None:
        return AtTarget(arms=arms, one_run=told.one_run, forms=told.forms)
    arm, confidence = known.arms.index(candidate), plan.decision.confidence
    logs, tail = log_ratios(known, found, *there)[:, arm - 1], (1 - confidence) / 2
    low, high = np.quantile(logs, (tail, 1 - tail)).tolist()
    runs = sum(row.arm == candidate for row in rows.rows)
    return AtTarget(
        arms=arms,
        one_run=told.one_run,
        forms=told.forms,
        log_ratio=Interval(float(logs.mean()), low, high, runs, math.nan, confidence),
        fan=fan(known, found, arm, *there),
    )


def foretold(
    rows: PilotRows, baseline: str, parameters: float, tokens: float
) -> tuple[Table, Posterior, Forecast]:
    """The forecast of every arm; one that diverged is refused.

    Raises:
        UserError: if the baseline diverged, or the rows make no table.
    """
    if count := rows.diverged[baseline]:
        raise UserError(
            f"{baseline} diverged in {count} of its runs, so the other arms have nothing to "
            "be compared with: run it at a lower learning rate"
        )
    known = table([row for row in rows.rows if not rows.diverged[row.arm]], baseline)
    found = posterior(known)
    told = forecast(known, parameters, tokens, found)
    lost = {
        name: ArmForecast(
            None, f"{name} diverged in {n} of its runs, so it has no token ratio", None
        )
        for name, n in rows.diverged.items()
        if n
    }
    return known, found, replace(told, arms=told.arms | lost)

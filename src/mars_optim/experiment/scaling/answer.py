"""The answer of ``mars forecast``: a ratio or a refusal for each arm, as data and as lines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...errors import UserError
from .design import SHORT, NextRun, lack, next_run
from .forecast import Posterior, TokenRatio, log_ratios, posterior
from .law import LONGEST, Floats
from .table import Table

WIDEST = 4.0  # upper over lower end of the 95 % interval


@dataclass(frozen=True, slots=True)
class ArmForecast:
    """One arm at the target: a ratio or a refusal.

    Args:
        token_ratio: tokens that the baseline needs for the arm's loss, over the arm's.
        refusal: why there is none, and what is needed, in a sentence.
        next_run: that would narrow it most for its price.
    """

    token_ratio: TokenRatio | None
    refusal: str | None
    next_run: NextRun | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """All arms at one target.

    Args:
        baseline: its name.
        parameters: of the target.
        tokens: of the target.
        arms: by name, the baseline apart.
        forms: weights of the law's forms by how they foretold what they had not seen.
        one_run: no seeds are repeated, so the ratios are those of one more run of each.
        longer: tokens per parameter of the target, over those of the longest runs.
    """

    baseline: str
    parameters: float
    tokens: float
    arms: dict[str, ArmForecast]
    forms: dict[str, float]
    one_run: bool
    longer: float = 1.0


def forecast(
    table: Table, parameters: float, tokens: float, found: Posterior | None = None
) -> Forecast:
    """The token ratio of each arm at a target.

    Args:
        table: of losses.
        parameters: of the target, counted as in the table.
        tokens: of the target.
        found: what the table says of the law, where it is known already.

    Raises:
        UserError: if the target is none.
    """
    for name, value in (("--parameters", parameters), ("--tokens", tokens)):
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{name} {value:g} must be a number above 0, such as 1.2e9")
    found = found or posterior(table)
    draws = log_ratios(table, found, parameters, tokens)
    arms = {}
    for arm in range(1, len(table.arms)):
        logs = draws[:, arm - 1]
        lacking = lack(table, arm, parameters, tokens)
        refusal = lacking.sentence if lacking else _useless(table, arm, parameters, logs)
        nearer = next_run(table, found, arm, (parameters, tokens), logs, lacking)
        if refusal and nearer:
            refusal += f"; best value for its price: {_pair(nearer)}"
        ratio = None if refusal else TokenRatio.of(logs)
        arms[table.arms[arm]] = ArmForecast(ratio, refusal, nearer)
    one_run = table.data.seed_sd is None
    longest = max(d / n for arm in range(1, len(table.arms)) for n, d in table.cells(arm))
    longer = tokens / parameters / longest
    return Forecast(table.arms[0], parameters, tokens, arms, found.weights, one_run, longer)


def _pair(run: NextRun) -> str:
    """The runs, as part of a sentence."""
    return (
        f"{' and '.join(run.arms)} at {run.parameters:.3g} parameters and {run.tokens:.3g} tokens "
        f"({run.flop:.2g} FLOP)"
    )


def _useless(table: Table, arm: int, parameters: float, logs: Floats) -> str | None:
    """Why the numbers say nothing, if they do."""
    name, baseline = table.arms[arm], table.arms[0]
    never = float(np.mean(logs >= LONGEST))
    if never > 0.025:
        return (
            f"{baseline} may never reach the loss of {name} at {parameters:.4g} parameters "
            f"({never:.0%} of what is likely): the ratio has no upper end"
        )
    low, high = np.exp(np.quantile(logs, (0.025, 0.975)))
    if high > WIDEST * low:
        return (
            f"the 95 % interval would go from {low:.2g} to {high:.2g}, which says nothing "
            f"about {name}: the losses are too noisy or too few for such a distant target"
        )
    return None


def as_json(told: Forecast) -> dict[str, Any]:
    """The forecast as plain data; what is None is left out."""
    return {
        "baseline": told.baseline,
        "target": {"parameters": told.parameters, "tokens": told.tokens},
        **arms_as_json(told.arms, told.forms, one_run=told.one_run),
    }


def arms_as_json(
    arms: Mapping[str, ArmForecast], forms: Mapping[str, float], *, one_run: bool
) -> dict[str, Any]:
    """A ratio or a refusal for each arm, and what they hold for, as plain data."""
    return {
        "arms": {
            name: {key: value for key, value in asdict(arm).items() if value is not None}
            for name, arm in arms.items()
        },
        "forms": dict(forms),
        "holds": "one more run of each" if one_run else "the mean over seeds",
    }


def lines(told: Forecast) -> list[str]:
    """The forecast for a terminal."""
    width = max(map(len, told.arms))
    found = [
        f"Token ratio to {told.baseline} at {told.parameters:.4g} parameters and "
        f"{told.tokens:.4g} tokens: tokens that it would need for the arm's loss, over the arm's."
    ]
    for name, arm in told.arms.items():
        if ratio := arm.token_ratio:
            found.append(
                f"  {name:<{width}}  {ratio.mean:.3f}   80 %: {ratio.low80:.3f} to "
                f"{ratio.high80:.3f}   95 %: {ratio.low95:.3f} to {ratio.high95:.3f}"
            )
        else:
            found.append(f"  {name:<{width}}  no forecast: {arm.refusal}.")
        if arm.next_run and arm.token_ratio:
            found.append(
                f"  {'':<{width}}  narrows it most for its price: {_pair(arm.next_run)}, "
                f"variance -{arm.next_run.narrows:.0%}"
            )
    if told.one_run:
        found.append(
            "No seed is repeated, so the luck of a run cannot be separated: the "
            "intervals are for one more run of each arm."
        )
    if told.longer > SHORT:
        found.append(
            f"The target has {told.longer:.2g} times the tokens per parameter of the "
            "longest runs: over such a factor gains have changed their sign, not only "
            "their size. Only longer runs can tell."
        )
    return found

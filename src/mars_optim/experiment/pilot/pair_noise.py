"""Noise between pairs of runs, and the seeds that an effect needs at this noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...errors import UserError
from ..analysis.analyse import analyse
from ..analysis.looks import level_of
from ..analysis.stats import pairs_needed, sd_interval
from ..plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Standard deviation of the log token ratio between pairs of runs.

    Args:
        sd: the estimate; None if the short runs do not show it.
        low: lower end of its 80 % interval.
        high: upper end.
        pairs: that it is from.
        source: "runs" (finished pairs of this pilot) or "short runs".
        rates: standard deviation that the choice of the rates adds to the estimate, whatever the
            number of pairs; None where it is not known: before the pilot's own trials.
    """

    sd: float | None
    low: float
    high: float
    pairs: int
    source: str
    rates: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """Seeds that show an effect with a chance of 80 %.

    Args:
        effect: share of tokens saved.
        threshold: share that the interval must leave out: 0 to see the effect, or the plan's
            worth to end as go.
        needed: at the noise as estimated; None if more than 200, or if the noise is not known.
        low: at the lower end of the noise.
        high: at its upper end.
    """

    effect: float
    threshold: float
    needed: int | None
    low: int | None
    high: int | None


def noise_of_runs(plan: Plan, out: Path) -> Noise | None:
    """From the pairs that are finished in ``out``, if there are two or more."""
    try:
        found = analyse(out, forecast=False)
    except UserError:
        return None
    ratio = found.candidate.log_ratio
    same = (found.plan.task, found.plan.training) == (plan.task, plan.training)
    if not same or ratio is None or ratio.n < 2:
        return None
    low, high = sd_interval(ratio.sd, ratio.n, 0.8)
    return Noise(sd=ratio.sd, low=low, high=high, pairs=ratio.n, source="runs", rates=ratio.rates)


def seeds_for(plan: Plan, noise: Noise, effect: float, threshold: float) -> Seeds:
    """Seeds that show an effect, by the plan's rule; arguments as in :class:`Seeds`."""
    distance = math.log1p(-threshold) - math.log1p(-effect)
    level = partial(level_of, plan.decision)

    def needed(sd: float | None) -> int | None:
        if sd is None or not math.isfinite(sd):
            return None
        found = pairs_needed(distance, sd, 0.0, level, rates=noise.rates or 0.0)
        return found and found - plan.trials_pair

    return Seeds(
        effect=effect,
        threshold=threshold,
        needed=needed(noise.sd),
        low=needed(noise.low) if noise.sd is not None else None,
        high=needed(noise.high) if noise.sd is not None else None,
    )

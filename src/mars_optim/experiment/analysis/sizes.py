"""Results at each model size, and their trend, as plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .stats import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeResult:
    """One model size.

    Args:
        name: in the plan's ``scale``; "main" for the plan's own task.
        parameters: of the model.
        tokens: of one run at the common budget.
        log_ratio: of tokens, candidate over baseline, paired over seeds.
        ratios: one per seed, at the rates used.
        choice: equally likely values of what the choice of the rates adds to all of them.
        control: the control's log ratio, where there is one.
        at_edge: arms whose best learning rate lies at an edge of those tried.
        diverged: runs of the candidate that diverged at its tuned rate.
        bounds: readings outside the ladder: "at least", "at most".
        missing: comparison runs that have not finished.
    """

    name: str
    parameters: int
    tokens: int
    log_ratio: Interval
    ratios: tuple[float, ...]
    choice: tuple[float, ...] = (0.0,)
    control: Interval | None
    at_edge: tuple[str, ...]
    diverged: int
    bounds: frozenset[str]
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """The log token ratio over the log of the parameters.

    Args:
        slope: change of the log token ratio for each factor of e in parameters; the interval is
            from the seeds' scatter, with (pairs - 2) degrees of freedom. It holds for these very
            sizes: what the next size would do is not in it.
        between: of the slope, from the sizes' means alone, (sizes - 2) degrees of freedom; None
            with two sizes, through which a line always goes.
    """

    slope: Interval
    between: Interval | None

    def per_doubling(self) -> Interval:
        """Change of the log token ratio for each doubling of the parameters."""
        return self.slope.map(lambda value: value * math.log(2))

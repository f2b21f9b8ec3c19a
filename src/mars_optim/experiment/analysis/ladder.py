"""Speed-up read off a ladder: how many tokens would the baseline need, fully decayed?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

BISECTIONS = 60  # to the last bit of a double
BEND = 0.4
"""Exponent of tokens in the loss between the only two rungs of a ladder."""


@dataclass(frozen=True, slots=True)
class LadderReading:
    """Tokens that the baseline needs to reach a loss.

    Args:
        tokens: read off the ladder, or its end if the loss lies outside.
        bound: "" for a reading; "at least" if the loss is below the ladder's, "at most" if above.
    """

    tokens: float
    bound: Literal["", "at least", "at most"]


def tokens_to_reach(rungs: Sequence[tuple[int, float]], loss: float) -> LadderReading:
    """Read one loss off one ladder, as :func:`read_ladders` does.

    Args:
        rungs: (tokens, final loss) of the baseline's runs, each fully decayed; two or more.
        loss: to reach; inf for a run that diverged.
    """
    rungs = sorted(rungs)
    log_tokens, losses = [math.log(t) for t, _ in rungs], [value for _, value in rungs]
    logs, side = read_ladders(log_tokens, [losses], [loss])
    if side[0] < 0:
        return LadderReading(rungs[0][0], "at most")
    if side[0] > 0:
        return LadderReading(rungs[-1][0], "at least")
    return LadderReading(math.exp(logs[0]), "")


def both_ways(
    there: LadderReading | None, base: float, rungs: Sequence[tuple[int, float]], tokens: float
) -> LadderReading | None:
    """Tokens that the baseline needs, read off both arms' ladders.

    There: the arm's loss on the baseline's ladder. Back: the baseline's loss on the arm's. Both
    tell how many times fewer tokens the arm needs; taken is the mean of their logarithms. Where one
    lies outside its ladder the other is taken, and where both do, the stronger bound.

    Args:
        there: that reading; None without one.
        base: the baseline's loss at the common budget.
        rungs: (tokens, final loss) of the arm's runs.
        tokens: of the common budget.
    """
    if len(rungs) < 2:
        return there
    found = tokens_to_reach(rungs, base)
    turned: dict[str, Literal["", "at least", "at most"]] = {
        "": "",
        "at least": "at most",
        "at most": "at least",
    }
    back = LadderReading(tokens * tokens / found.tokens, turned[found.bound])
    if there is None or (there.bound and not back.bound):
        return back
    if there.bound == back.bound == "":
        return LadderReading(math.sqrt(there.tokens * back.tokens), "")
    if there.bound != back.bound:
        return there
    stronger = max if there.bound == "at least" else min
    return stronger(there, back, key=lambda reading: reading.tokens)


def read_ladders(
    log_tokens: ArrayLike, losses: ArrayLike, loss: ArrayLike
) -> tuple[Floats, NDArray[np.int_]]:
    """Where each loss lies on its own ladder.

    Between rungs runs the monotone cubic (PCHIP) of loss over log tokens; between the only two
    rungs of a ladder, the law ``A + B tokens^-BEND``. A straight line lies above a curve that
    flattens, so it would overstate what the candidate saves, by more than the interval's half width
    where seeds agree well (docs/statistics.md). Where more tokens gave a
    higher loss (noise), the rungs between take their common mean, which favours neither side as a
    running minimum would.

    Args:
        log_tokens: of the rungs, rising, (rungs,).
        losses: of the rungs of n ladders, (n, rungs).
        loss: to reach on each, (n,); inf for a run that diverged.

    Returns:
        Log tokens (n,), at an end of the ladder if the loss lies outside; and on which side of
        the ladder it lies (n,): -1 before its first rung, 0 on it, 1 beyond its last.
    """
    x, fit, y = np.asarray(log_tokens, float), falling_fit(losses), np.asarray(loss, float)
    side = (y < fit[:, -1]).astype(int) - (y > fit[:, 0])
    rung = np.where(side > 0, x.size - 1, np.argmax(y[:, None] >= fit, axis=1))  # first reached
    logs = x[rung]
    at_rung = fit[np.arange(y.size), rung] == y
    between = (side == 0) & (rung > 0) & ~at_rung
    if between.any():
        logs[between] = _solve(x, fit[between], y[between], rung[between] - 1)
    return logs, side


def _solve(x: Floats, fit: Floats, y: Floats, segment: NDArray[np.int_]) -> Floats:
    """Log tokens (n,) at which the curve through ``fit`` (n, rungs) is ``y`` (n,).

    On a cubic by bisection: scipy's ``PchipInterpolator.solve`` finds nothing within rounding of a
    rung.
    """
    from scipy.interpolate import PchipInterpolator  # slow to import

    if x.size == 2:
        # (t / t_0)^-BEND falls from 1 in proportion to the loss
        share = (fit[:, 0] - y) / (fit[:, 0] - fit[:, 1])
        of_law: Floats = x[0] - np.log1p(share * np.expm1(-BEND * (x[1] - x[0]))) / BEND
        return of_law
    # (4, n): of the cubic in each one's segment, highest power first
    cubic = PchipInterpolator(x, fit, axis=-1).c[:, segment, np.arange(y.size)]
    low, high = np.zeros_like(y), (x[1:] - x[:-1])[segment]
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        above = np.polyval(cubic, middle) > y
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    solved: Floats = x[segment] + (low + high) / 2
    return solved


def fall_between(x: Floats, y: Floats, loss: float) -> float:
    """The fall at ``loss`` per unit of log tokens, between two rungs.

    L = A + B t^-BEND, so -dL / dlog t = BEND (L - A).

    Args:
        x: log tokens of both, rising.
        y: their losses, falling.
        loss: between them; one outside counts as the nearer end.
    """
    b = (y[0] - y[1]) / -math.expm1(-BEND * (x[1] - x[0]))
    inside = float(np.clip(loss, y[1], y[0]))
    return float(BEND * (inside - (y[0] - b)))


def falling_fit(values: ArrayLike) -> Floats:
    """The never rising sequence nearest in least squares, along the last axis (..., rungs)."""
    from scipy.optimize import isotonic_regression  # slow to import

    def fit(row: Floats) -> Floats:
        found: Floats = isotonic_regression(row, increasing=False).x
        return found

    return np.apply_along_axis(fit, -1, np.asarray(values, float))

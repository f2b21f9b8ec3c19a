"""Times to a target, of which some are only known to be longer than their run: their ratio.

A run that misses the target is censored: its time is at least its length. Log times are normal,
with one variance for both arms, and the two runs of a seed may go together:

    d = log T[baseline] - log T[candidate] ~ N(delta, s^2),    m = their mean ~ N(mu, v^2)

with flat priors of delta, mu, log s and log v. Without a missed run delta is Student's t around
the mean of the pairs. Else the missing times are drawn: given all else, then delta, s, mu and v
given the times, in turn (Gibbs); and delta is the mean of Student's t around the pairs of each draw
(Rao and Blackwell), whose far tails need few of them.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .stats import Interval, t_interval

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Kind = Literal["pairs", "censored", "at least", "at most", "too few"]

LEAST_WHOLE = 3
"""Pairs of which both runs reached the target, for the model to be used (docs/statistics.md)."""
CHAINS, BEFORE = 256, 100
MIXED, EVERY = 4, 5
"""Sweeps of which the mean of Student's t is made, and how many lie between two of them."""
FARTHEST = math.log(100.0)
"""No missing time is taken to be longer than a hundred times its run."""


@dataclass(frozen=True, slots=True)
class Times:
    """Log times of n pairs: (n,), or (..., n) of many pilots.

    Args:
        base: of the baseline; of a run that missed the target, its length.
        cand: of the candidate, likewise.
        base_missed: where the baseline missed.
        cand_missed: where the candidate did.
    """

    base: Floats
    cand: Floats
    base_missed: Flags
    cand_missed: Flags


def kind_of(times: Times) -> Kind:
    """How the ratio of n pairs is told.

    "pairs" if no run missed; "censored", by the model, if enough pairs are whole; else a bound, if
    only one arm missed: a length in the place of a time errs to one side.
    """
    base, cand = times.base_missed, times.cand_missed
    if not (base | cand).any():
        return "pairs"
    if int((~(base | cand)).sum()) >= LEAST_WHOLE:
        return "censored"
    if (base & cand).any() or (base.any() and cand.any()):
        return "too few"
    return "at least" if base.any() else "at most"


def ratio_interval(times: Times, confidence: float) -> tuple[Interval | None, Kind]:
    """The interval of delta for one pilot, and how it was told; None where nothing can be."""
    kind, n = kind_of(times), times.base.size
    if kind == "too few" or not n:
        return None, "too few"
    if kind != "censored":  # of a bound, the lengths stand for the times
        return t_interval((times.base - times.cand).tolist(), confidence), kind
    rows = (times.base, times.cand, times.base_missed, times.cand_missed)
    x, share, sd = _distribution(tuple(tuple(row.tolist()) for row in rows))
    tail = (1 - confidence) / 2
    low, middle, high = np.interp((tail, 0.5, 1 - tail), share, x).tolist()
    law = tuple(x.tolist()), tuple(share.tolist())
    return Interval(middle, low, high, n, sd, confidence, law=law), kind


@functools.lru_cache(maxsize=64)  # an agenda asks again and again
def _distribution(rows: tuple[tuple[float, ...], ...]) -> tuple[Floats, Floats, float]:
    """Places, the distribution function of delta there, and the median of the pairs' deviations.

    With d_k the pairs of draw k, all times known: delta ~ mean over k of t(mean d_k, sd d_k / n^.5)
    """
    from scipy.special import stdtr  # slow to import

    base, cand, *missed = map(np.array, rows)
    sweeps = _sweeps(Times(base, cand, *missed), CHAINS, BEFORE + MIXED * EVERY)
    taken = itertools.islice(sweeps, BEFORE, None, EVERY)
    pairs = np.concatenate([pairs for pairs, _, _ in taken])
    n = pairs.shape[1]
    mean, sd = pairs.mean(axis=1), pairs.std(axis=1, ddof=1) + 1e-9
    error = sd / math.sqrt(n)
    x = np.median(mean) + np.median(error) * np.sinh(np.linspace(-8, 8, 401))
    share = stdtr(n - 1, (x[:, None] - mean) / error).mean(axis=1)
    return x, share, float(np.median(sd))


def draw_ratios(
    times: Times, *, chains: int = CHAINS, before: int = BEFORE, kept: int = 100
) -> tuple[Floats, Floats]:
    """Draws of delta and s, each (chains * kept, ...); the same ones every time.

    Args:
        times: of at least two whole pairs.
        chains: drawn beside each other.
        before: sweeps that are thrown away.
        kept: sweeps that are not.
    """
    sweeps = itertools.islice(_sweeps(times, chains, before + kept), before, None)
    found = [(delta[..., 0], np.sqrt(s2[..., 0])) for _, delta, s2 in sweeps]
    delta, spread = (np.concatenate(each) for each in zip(*found, strict=True))
    return delta, spread


def _sweeps(times: Times, chains: int, number: int) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Pairs with the missing times drawn (chains, ..., n); delta and s^2 before that (..., 1)."""
    rng = np.random.default_rng(0)
    shape = (chains, *times.base.shape)
    base, cand = (np.broadcast_to(x, shape).copy() for x in (times.base, times.cand))
    for x, missed in ((base, times.base_missed), (cand, times.cand_missed)):
        x += np.where(missed, 0.1 * rng.exponential(size=shape), 0.0)
    for _ in range(number):
        delta, s2 = _normal(base - cand, rng)
        mu, v2 = _normal((base + cand) / 2, rng)
        variance = v2 + s2 / 4
        rho = (v2 - s2 / 4) / variance
        sd = np.sqrt(s2 * v2 / variance) + 1e-9  # of one time, given the other
        middle = mu + delta / 2 + rho * (cand - mu + delta / 2)
        base = np.where(times.base_missed, _above(times.base, middle, sd, rng), base)
        middle = mu - delta / 2 + rho * (base - mu - delta / 2)
        cand = np.where(times.cand_missed, _above(times.cand, middle, sd, rng), cand)
        yield base - cand, delta, s2


def _normal(values: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """A draw of mean and variance given normal values (..., n), each (..., 1)."""
    n = values.shape[-1]
    mean = values.mean(axis=-1, keepdims=True)
    squares = ((values - mean) ** 2).sum(axis=-1, keepdims=True) + 1e-18
    variance = squares / rng.chisquare(n - 1, size=mean.shape)
    return mean + np.sqrt(variance / n) * rng.standard_normal(mean.shape), variance


def _above(low: Floats, mean: Floats, sd: Floats, rng: np.random.Generator) -> Floats:
    """A draw of a normal value that is above ``low``."""
    from scipy.special import ndtr, ndtri

    share = ndtr((mean - low) / sd) * rng.uniform(size=mean.shape)
    drawn: Floats = mean - sd * ndtri(np.maximum(share, 1e-300))
    return np.clip(drawn, low, low + FARTHEST)


def not_yet(times: Floats, missed: Flags) -> tuple[tuple[float, float], ...]:
    """Kaplan and Meier's curve: (time, share of runs that have not reached the target then)."""
    from scipy.stats import CensoredData, ecdf  # slow to import

    found = ecdf(CensoredData(uncensored=times[~missed], right=times[missed])).sf
    return tuple(zip(found.quantiles.tolist(), found.probabilities.tolist(), strict=True))


def median_time(curve: tuple[tuple[float, float], ...]) -> float | None:
    """When half of the runs have reached the target; None if they do not in their length."""
    return next((time for time, share in curve if share <= 0.5), None)

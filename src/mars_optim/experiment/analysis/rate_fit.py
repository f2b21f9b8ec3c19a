"""An arm's best learning rate, by a fit over all its trials, and what is still unknown of it.

Near its lowest point a loss is close to a parabola in log2 of the rate, steeper on one side:

    y_i = L[seed_i] + a_i |x_i - x*|^p + noise_i,    a_i = a exp(+-b): + above x*, - below

with p near 2. That is a local law: a trial at distance d may be off by the share c d of its
height above the lowest point. So far and steep trials say where the valley is, near ones where it
is lowest. A trial that diverged puts a wall: the best rate lies on this side of it. Trials beyond
a jump of the loss may be no part of the valley (runs that are stuck alike, or that hardly trained):
the fit without them is weighed against the fit with them.

What is not known (x*, a, b, c, p, the noise) is summed over, on a grid, with flat priors in x*,
log a and log noise. The rate of an arm is the one with the least expected *regret*, which is the
loss above that at x*. The regret that is left is a distribution; the intervals of the comparison
take it in (:mod:`.choice`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Observation = tuple[float, int, float | None]
"""One trial: learning rate, seed, final loss; None for a run that diverged."""

SHAPES = np.array([(2.0, 0.02), (2.0, 0.1), (2.0, 0.3), (1.5, 0.05), (2.5, 0.05)])
"""(p, c): the exponent, and the share of its height, for each octave of distance, by which a trial
may be off the law."""
ASYMMETRY = (0.15, 0.45)
"""Mean and standard deviation of b: the steep side is the upper one a little oftener."""
STUCK = 0.1
"""Prior probability that trials beyond a jump lie anywhere in the losses' range."""
REACH = (1.5, 1.25)
"""Steps, and octaves at the least, on both sides of the best trial where x* is looked for."""
QUANTILES = 128
"""Equally likely values that stand for a distribution of regret."""
NODES = 9
"""Points of the sum over the curvature."""


@dataclass(frozen=True, slots=True)
class Noise:
    """How much a run's loss differs from another's of the same seed, from runs that repeat.

    Args:
        sd: standard deviation of one run.
        degrees: of freedom of this estimate.
    """

    sd: float
    degrees: int


@dataclass(frozen=True, slots=True)
class RateFit:
    """Where an arm's lowest loss lies.

    Args:
        x: log2 rates on which x* is looked for, rising, (points,).
        weight: posterior probability of each (points,).
        best: rate of the least expected regret, rounded to three digits; never between one that
            diverged and its nearest that did not.
        states: x*, curvature below, curvature above, exponent, probability, each (states,).
        lowest: loss at x* on one seed: that of the search (states,).
    """

    x: Floats
    weight: Floats
    best: float
    states: tuple[Floats, Floats, Floats, Floats, Floats]
    lowest: Floats

    def loss(self, lr: float) -> float:
        """Expected loss at ``lr``, on the seed of the search."""
        weight = self.states[4]
        return float(weight @ (self.lowest + self._height(lr)) / weight.sum())

    def regret(self, lr: float) -> Floats:
        """Loss at ``lr`` above the lowest there is: equally likely values, rising."""
        return quantiles(self._height(lr), self.states[4])

    def _height(self, lr: float) -> Floats:
        """Loss at ``lr`` above the lowest there is, in each state."""
        x_star, below, above, exponent, _ = self.states
        d = math.log2(lr) - x_star
        height: Floats = np.where(d > 0, above, below) * np.abs(d) ** exponent
        return height

    def low_high(self, confidence: float) -> tuple[float, float]:
        """The range of rates in which the best lies with this probability."""
        tail = (1 - confidence) / 2
        edges = np.append(self.x, 2 * self.x[-1] - self.x[-2]) - (self.x[1] - self.x[0]) / 2
        levels = np.append(0.0, np.cumsum(self.weight))
        low, high = np.interp((tail, 1 - tail), levels, edges)
        return float(2.0**low), float(2.0**high)


def quantiles(values: Floats, weight: Floats, number: int = QUANTILES) -> Floats:
    """Equally likely values of a weighted sample: the middles of ``number`` equal shares."""
    order = np.argsort(values)
    levels = (np.cumsum(weight[order]) - 0.5 * weight[order]) / weight.sum()
    found: Floats = np.interp((np.arange(number) + 0.5) / number, levels, values[order])
    return found


def fit_rate(
    trials: Sequence[Observation],
    factor: float,
    noise: Noise | None = None,
    seed: int | None = None,
) -> RateFit | None:
    """Fit an arm's trials.

    Args:
        trials: of one arm at one budget, of one or more tuning seeds.
        factor: between neighbouring learning rates of the search, > 1.
        noise: of a run, where the comparison tells it; else it is told by the trials alone.
        seed: of the search; default the lowest.

    Returns:
        None if fewer than two different rates have a loss.
    """
    return _fit(tuple(sorted(trials, key=lambda t: (t[0], t[1]))), factor, noise, seed)


@functools.lru_cache(maxsize=512)  # an agenda asks again and again
def _fit(
    trials: tuple[Observation, ...], factor: float, noise: Noise | None, search: int | None
) -> RateFit | None:
    finite = [
        (math.log2(lr), seed, loss)
        for lr, seed, loss in trials
        if loss is not None and math.isfinite(loss)
    ]
    if len({x for x, _, _ in finite}) < 2:
        return None
    x, seed, y = (np.array(column) for column in zip(*finite, strict=True))
    members = (seed[None, :] == _first(seed, search)[:, None]).astype(float)  # (seeds, trials)
    height = y - (members * np.array([[y[m > 0].min()] for m in members])).sum(axis=0)
    scale = float(height.max()) or 1e-12 * max(1.0, abs(float(y[0])))
    if scale < 1e-200:
        return None  # losses that no arithmetic tells apart
    least = float(y.min())
    y, height = (y - least) / scale, height / scale
    x_star = _places(x, y, members, trials, math.log2(factor))
    sigma, prior_sigma = _noises(noise and Noise(noise.sd / scale, noise.degrees))
    b = ASYMMETRY[0] + ASYMMETRY[1] * np.linspace(-2, 2, 5)
    prior_b = -0.5 * np.linspace(-2, 2, 5) ** 2
    parts = [_posterior(x, y, height, members, x_star, b, sigma)]
    if (valley := _valley(x, y, height)) is not None:
        parts[0][0][...] += math.log(1 - STUCK)
        seeds = members[:, valley]
        seeds = seeds[seeds.any(axis=1)]
        parts += [_posterior(x[valley], y[valley], height[valley], seeds, x_star, b, sigma)]
        parts[1][0][...] += math.log(STUCK)
    log_weight, a, level = (np.stack(both) for both in zip(*parts, strict=True))  # (fits, x*, ...)
    log_weight += prior_b[:, None, None, None] + prior_sigma[:, None, None]
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    keep = weight > 1e-5 * weight.max()
    grid = np.broadcast_arrays(
        x_star[:, None, None, None, None],
        scale * a * np.exp(-b)[None, :, None, None, None],
        scale * a * np.exp(b)[None, :, None, None, None],
        SHAPES[:, :1],
        weight,
        least + scale * level,
    )
    *states, lowest = (part[keep] for part in grid)
    best = _beside_no_wall(_least_regret(states, x_star), trials)
    of_x = weight.sum(axis=(0, 2, 3, 4, 5))
    return RateFit(x_star, of_x, best, tuple(states), lowest)


def _first(seed: NDArray[np.int_], search: int | None) -> NDArray[np.int_]:
    """The seeds, that of the search first."""
    seeds = np.unique(seed)
    order: NDArray[np.int_] = np.argsort(seeds != search, kind="stable")
    return seeds[order]


def _places(
    x: Floats, y: Floats, members: Floats, trials: tuple[Observation, ...], step: float
) -> Floats:
    """Where the lowest point may lie: around the best trial, below what diverged above it."""
    level = np.array([np.median(y[m > 0]) for m in members]) @ members
    centre = float(x[np.argmin(y - level)]) if len(members) > 1 else float(x[np.argmin(y)])
    reach, beyond = max(REACH[0] * step, REACH[1]), max(step, 0.5)
    low = max(centre - reach, float(x.min()) - beyond)
    high = min(centre + reach, float(x.max()) + beyond)
    gone = [math.log2(lr) for lr, _, loss in trials if loss is None]
    high = min([high, *[g for g in gone if g > centre]])
    low = max([low, *[g for g in gone if g < centre]])
    return np.linspace(low, high, 83)[1:-1]


def _valley(x: Floats, y: Floats, height: Floats) -> NDArray[np.bool_] | None:
    """The trials within the jumps of the loss on both sides of the best.

    A jump is the greatest rise between neighbouring rates on one side, if two rates or more lie
    beyond it whose losses differ by less than half of it.

    Returns:
        None without a jump.
    """
    best, inside = x[np.argmin(y)], np.ones(x.size, bool)
    for side in (1, -1):
        rates = side * np.unique(side * x[side * x >= side * best])
        level = np.array([height[x == rate].mean() for rate in rates])
        if len(rates) < 4:
            continue
        k = int(np.argmax(np.diff(level))) + 1
        if len(rates) - k > 1 and np.ptp(level[k:]) < 0.5 * (level[k] - level[k - 1]):
            inside &= side * x < side * rates[k]
    return None if inside.all() or np.unique(x[inside]).size < 3 else inside


def _noises(noise: Noise | None) -> tuple[Floats, Floats]:
    """Standard deviations of the noise in units of the losses' range, the log of their priors."""
    if noise is None or noise.degrees < 1:
        sigma: Floats = np.geomspace(0.002, 0.7, 6)
        return sigma, np.zeros(6)
    # sd^2 degrees / sigma^2 has a chi-square distribution: with one degree sigma may be 32 sd
    most = max(1.2, -0.5 * math.log(_least_chi_square(noise.degrees) / noise.degrees))
    sigma = max(noise.sd, 1e-4) * np.exp(np.linspace(-0.9, most, 5 if most == 1.2 else 7))
    known = -noise.degrees * (np.log(sigma) + noise.sd**2 / (2 * sigma**2))
    return sigma, known


@functools.cache
def _least_chi_square(degrees: int) -> float:
    """Its quantile of 2.5 %."""
    from scipy.special import chdtri  # slow to import

    return float(chdtri(degrees, 0.975))


def _posterior(
    x: Floats,
    y: Floats,
    height: Floats,
    members: Floats,
    x_star: Floats,
    b: Floats,
    sigma: Floats,
) -> tuple[Floats, Floats, Floats]:
    """Log posterior weight, curvature a, and level L of the first seed given these, each (x*, b,
    noise, shape, curvature nodes).

    Given x*, b, c and the noise, the model is linear in the levels L and in a: levels are summed
    over in closed form, a by nodes over where it is likely. In the sums s is noise and shape.
    """
    d = x - x_star[:, None]  # (x*, trials)
    power, c = SHAPES.T
    rise = np.abs(d)[:, None] ** power[:, None]  # (x*, shape, trials)
    steep = np.exp(np.sign(d)[:, None] * b[:, None])  # (x*, b, trials)
    q = np.tile(steep[:, :, None] * rise[:, None], (1, 1, sigma.size, 1))  # (x*, b, s, trials)
    off = (c[:, None] * (np.abs(d) * height)[:, None]) ** 2  # (x*, shape, trials)
    variance = sigma[None, :, None, None] ** 2 + off[:, None]
    w = 1.0 / variance.reshape(x_star.size, -1, x.size)  # (x*, s, trials)
    total = np.einsum("xst,gt->xsg", w, members)
    wy = np.einsum("xst,gt,t->xsg", w, members, y) / total
    wq = np.einsum("xst,gt,xbst->xbsg", w, members, q) / total[:, None]
    y_left = y - np.einsum("xsg,gt->xst", wy, members)  # less its seed's level
    q_left = q - np.einsum("xbsg,gt->xbst", wq, members)
    s_yy = np.einsum("xst,xst->xs", w, y_left**2)
    s_qy = np.einsum("xst,xbst,xst->xbs", w, q_left, y_left)
    s_qq = np.einsum("xst,xbst->xbs", w, q_left**2) + 1e-300
    middle, sd = s_qy / s_qq, s_qq**-0.5
    least, most = 1e-3, 30.0
    low = np.clip(middle - 4 * sd, least, most)
    high = np.clip(middle + 4 * sd, 1.01 * low, most * 1.02)
    share = np.linspace(0.0, 1.0, NODES)
    a = low[..., None] * (high / low)[..., None] ** share
    log_a = -0.5 * ((a - middle[..., None]) / sd[..., None]) ** 2
    log_a += np.log(np.log(high / low))[..., None]  # the width of a node, in log a
    evidence = 0.5 * (np.log(w / (2 * np.pi)).sum(axis=-1) - np.log(total).sum(axis=-1) - s_yy)
    evidence = evidence[:, None] + 0.5 * s_qy**2 / s_qq
    level = wy[:, None, :, 0, None] - a * wq[..., 0, None]
    shape = (x_star.size, b.size, sigma.size, len(SHAPES), NODES)
    return tuple(v.reshape(shape) for v in (evidence[..., None] + log_a, a, level))


def _least_regret(states: Sequence[Any], x_star: Floats) -> float:
    """The rate of the least expected regret."""
    where, below, above, exponent, weight = states
    fine = np.linspace(x_star[0], x_star[-1], 3 * x_star.size)
    d, risk = fine[:, None] - x_star, np.zeros(fine.size)
    for p in np.unique(exponent):
        mine = exponent == p
        index = np.searchsorted(x_star, where[mine])
        left, right = (
            np.bincount(index, (weight * side)[mine], minlength=x_star.size)
            for side in (below, above)
        )
        risk += (np.abs(d) ** p * np.where(d > 0, right, left)).sum(axis=1)
    return float(f"{2.0 ** fine[int(np.argmin(risk))]:.3g}")


def _beside_no_wall(best: float, trials: Sequence[Observation]) -> float:
    """The rate, or the nearest that diverged on no seed where one tried next to it did.

    Where between the two runs begin to diverge is not known, and a comparison at a rate that
    diverges is lost.
    """
    gone = {lr for lr, _, loss in trials if loss is None}
    kept = {lr for lr, _, loss in trials if loss is not None} - gone
    below = max((lr for lr in kept | gone if lr <= best), default=best)
    above = min((lr for lr in kept | gone if lr >= best), default=best)
    if not kept or not {below, above} & gone:
        return best
    beside = {below, above} & kept or kept
    nearest = min(beside, key=lambda lr: (abs(math.log(lr / best)), lr))
    return float(f"{nearest:.3g}")

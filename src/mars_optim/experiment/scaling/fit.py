"""The law fitted to a table: Laplace's approximation, over a grid of what the noise may be."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .law import Floats, Law, Points

DRIFTS = (0.01, 0.04, 0.15)  # of g and h, per e-fold
BENDS = (0.01, 0.03, 0.08)  # of w, per e-fold
COMMON = (0.0, 1.0, 3.0)  # of what all arms of a cell share, in units of what they do not
SHRINK = (0.0, 1.0)  # noise falls with this power of the loss's fall
NOISES = np.exp(np.arange(-6.5, 0.6, 0.3))  # of a cell's loss, in e-folds of tokens
NEGLIGIBLE, ENOUGH = 7.0, 4.0  # of log evidence below the best: of all, along the noise
HOPELESS = 9.0  # with drift and bend in the middle


@dataclass(frozen=True, slots=True)
class Data:
    """Mean losses of cells, in units of their fall per e-fold of tokens.

    Args:
        at: where, (cells,).
        loss: (cells,).
        place: number of the size and budget, which arms share, (cells,).
        runs: in each cell's mean, (cells,).
        seed_sd: standard deviation of one run by its seed; None where no cell has two.
    """

    at: Points
    loss: Floats
    place: NDArray[np.intp]
    runs: Floats
    seed_sd: float | None

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Data:
        return replace(
            self,
            at=self.at[chosen],
            loss=self.loss[chosen],
            place=self.place[chosen],
            runs=self.runs[chosen],
        )


@dataclass(frozen=True, slots=True)
class Spread:
    """A point of the grid, but for the noise.

    Args:
        shrink: power of the loss's fall with which the noise goes.
        common: standard deviation of what all arms share in a cell, in units of what they do not.
        drift: standard deviation of an arm's drift per e-fold.
        bend: of its changes from size to size.
    """

    shrink: float
    common: float
    drift: float
    bend: float


@dataclass(frozen=True, slots=True)
class Fit:
    """The law's parameters as a normal distribution, at one point of the grid.

    Args:
        law: with its form.
        theta: most probable parameters.
        covariance: of them.
        i: number of the noise in the grid.
        fall: of the baseline's loss per e-fold of tokens, its mean over the cells.
        spread: the rest of the point.
        evidence: log density of the data, the parameters summed over.
    """

    law: Law
    theta: Floats
    covariance: Floats
    i: int
    fall: float
    spread: Spread
    evidence: float

    @property
    def noise(self) -> float:
        """Standard deviation of a cell's own loss, its seeds apart, where its fall is the mean."""
        return float(NOISES[self.i])


def grid(data: Data, law: Law) -> list[Fit]:
    """Fits over what is not known of noise and drift, each point equally likely before the data.

    A cell's loss is the law's, plus what all arms share there, plus its own:

        covariance of losses = own^2 I + common^2 mean(own^2) [same place]
        own^2                = noise^2 fall^(2 shrink) + seed_sd^2 / runs

    with the loss's fall per e-fold of tokens in units of its mean. Negligible points are left out.
    """
    noises = Noises(data, _falls(data, law))
    pairs = [Spread(*pair, DRIFTS[1], BENDS[1]) for pair in itertools.product(SHRINK, COMMON)]
    first = [_over_noises(data, law, noises, pair, None) for pair in pairs]
    found = [fit for fits in first for fit in fits]
    best = max(found, key=_likely)
    for pair, fits in zip(pairs, first, strict=True):
        start = max(fits, key=_likely)
        if start.evidence > best.evidence - HOPELESS:
            for drift, bend in itertools.product(DRIFTS, BENDS):
                if (drift, bend) != (pair.drift, pair.bend):
                    spread = replace(pair, drift=drift, bend=bend)
                    found += _over_noises(data, law, noises, spread, start)
    top = max(fit.evidence for fit in found)
    return [fit for fit in found if fit.evidence > top - NEGLIGIBLE]


def held_out(data: Data, kept: NDArray[np.bool_], found: Sequence[Fit]) -> float:
    """Log density of the cells not kept, under the likeliest fits, from those that are kept.

    log p(left out | kept) = log p(all) - log p(kept), both over the same points of the grid.
    """
    likeliest = sorted(found, key=_likely, reverse=True)[:6]
    rest, law = data[kept], likeliest[0].law
    noises = Noises(rest, _falls(data, law)[kept])
    fits = [laplace(rest, law, noises, fit.i, fit.spread, fit.theta) for fit in likeliest]
    whole, part = ([fit.evidence for fit in side] for side in (likeliest, fits))
    return float(np.logaddexp.reduce(whole) - np.logaddexp.reduce(part))


def _likely(fit: Fit) -> float:
    return fit.evidence


def _falls(data: Data, law: Law) -> Floats:
    """Fall of the baseline's loss per e-fold of tokens at each cell."""
    noises = Noises(data, np.ones(len(data.loss)))
    spread = Spread(0.0, COMMON[-1], DRIFTS[1], BENDS[1])
    fits = _over_noises(data, law, noises, spread, None)
    return law.slopes(max(fits, key=_likely).theta, data.at)


def _over_noises(
    data: Data, law: Law, noises: Noises, spread: Spread, near: Fit | None
) -> list[Fit]:
    """From the noise of a fit nearby so far outward on both sides, while it is not negligible."""
    i = len(NOISES) // 2 if near is None else near.i
    found = [laplace(data, law, noises, i, spread, None if near is None else near.theta)]
    top = found[0].evidence
    for side in (-1, 1):
        last = found[0]
        while 0 <= last.i + side < len(NOISES) and last.evidence > top - ENOUGH:
            last = laplace(data, law, noises, last.i + side, spread, last.theta)
            found.append(last)
            top = max(top, last.evidence)
    return found


class Noises:
    """Inverse covariances of the cells' losses, and the covariances' log determinants.

    Args:
        data: whose losses.
        falls: of the loss per e-fold of tokens, (cells,).
    """

    def __init__(self, data: Data, falls: Floats) -> None:
        self.data, self.fall = data, float(np.exp(np.log(falls).mean()))
        self.falls = falls / self.fall
        self.known: dict[tuple[int, float, float], tuple[Floats, float]] = {}

    def __call__(self, i: int, shrink: float, common: float) -> tuple[Floats, float]:
        """At a point of the grid."""
        if (i, shrink, common) not in self.known:
            data = self.data
            own = NOISES[i] ** 2 * self.falls ** (2 * shrink)
            own += (data.seed_sd or 0.0) ** 2 / data.runs
            shared = common**2 * own.mean() * (data.place[:, None] == data.place)
            covariance = np.diag(own) + shared
            log_det = float(np.linalg.slogdet(covariance)[1])
            self.known[i, shrink, common] = np.linalg.inv(covariance), log_det
        return self.known[i, shrink, common]


def laplace(
    data: Data,
    law: Law,
    noises: Noises,
    i: int,
    spread: Spread,
    start: Floats | None,
) -> Fit:
    """The most probable parameters and the curvature there, by Levenberg's and Marquardt's steps.

    cost = (r' P r + z' z) / 2,  r = loss - law,  z = (theta - mean) / sd
    """
    precision, log_det = noises(i, spread.shrink, spread.common)
    mean, sd = law.prior(spread.drift, spread.bend, floor=float(data.loss.min()) - 8.0)

    def cost_of(theta: Floats) -> tuple[Floats, float]:
        rest = data.loss - law.losses(theta, data.at)
        cost = float(rest @ precision @ rest + (((theta - mean) / sd) ** 2).sum()) / 2
        return rest, cost if np.isfinite(cost) else np.inf

    theta = mean if start is None else start
    rest, cost = cost_of(theta)
    damp = 1e-3 if start is None else 1e-6
    for _ in range(60):
        slope = law.jacobian(theta, data.at)
        weighted = slope.T @ precision
        curve = weighted @ slope + np.diag(sd**-2)
        downhill = weighted @ rest - (theta - mean) / sd**2
        step = np.linalg.solve(curve + damp * np.diag(np.diag(curve)), downhill)
        new_rest, new_cost = cost_of(theta + step)
        if new_cost > cost:
            damp = max(damp, 1e-6) * 10
            if damp > 1e6:
                break
            continue
        done = cost - new_cost < 1e-2
        theta, rest, cost, damp = theta + step, new_rest, new_cost, damp / 10
        if done:
            break
    evidence = -cost - (log_det + np.linalg.slogdet(curve)[1]) / 2 - np.log(sd).sum()
    evidence -= len(data.loss) * np.log(2 * np.pi) / 2
    covariance = np.asarray(np.linalg.inv(curve), np.float64)
    return Fit(law, theta, covariance, i, noises.fall, spread, float(evidence))

"""The law fitted to a table: Laplace's approximation, over a grid of what the noise may be."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .law import Floats, Law, Points

DRIFTS = (0.01, 0.04, 0.15)  # of g and h, per e-fold
BENDS = (0.01, 0.03, 0.1)  # of w, per e-fold; v has half of the drift's
COMMON = (0.0, 1.0, 3.0)  # of what all arms of a cell share, in units of what they do not
NOISES = np.exp(np.arange(-6.5, 0.6, 0.25))  # of a cell's loss, in e-folds of tokens
NEGLIGIBLE, ENOUGH = 7.0, 4.0  # of log evidence below the best: of all, along the noise


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
class Fit:
    """The law's parameters as a normal distribution, at one point of the grid.

    Args:
        law: with its form.
        theta: most probable parameters.
        covariance: of them.
        noise: standard deviation of a cell's own loss, what its seeds do apart.
        spread: standard deviations of the drift and of its bends over sizes.
        evidence: log density of the data, the parameters summed over.
    """

    law: Law
    theta: Floats
    covariance: Floats
    noise: float
    spread: tuple[float, float]
    evidence: float


def grid(data: Data, law: Law) -> list[Fit]:
    """Fits over noise, common noise, drift and bends, each equally likely before the data.

    A cell's loss is the law's, plus what all arms share there, plus its own:

        covariance of losses = (noise^2 + seed_sd^2 / runs) I + common^2 [same place]

    Negligible points are left out.
    """
    found: list[Fit] = []
    noises = _Noises(data)
    for common, drift, bend in itertools.product(COMMON, DRIFTS, BENDS):
        found += _over_noises(data, law, noises, common, (drift, bend), found)
        best = max(fit.evidence for fit in found)
        found = [fit for fit in found if fit.evidence > best - NEGLIGIBLE]
    return found


def _over_noises(
    data: Data,
    law: Law,
    noises: _Noises,
    common: float,
    spread: tuple[float, float],
    known: Sequence[Fit],
) -> list[Fit]:
    """From the likeliest noise so far outward on both sides, while it is not negligible."""
    first = max(known, key=lambda fit: fit.evidence) if known else None
    middle = len(NOISES) // 2 if first is None else int(np.argmin(abs(NOISES - first.noise)))
    found: dict[int, Fit] = {}

    def fit(i: int, start: Floats | None) -> Fit:
        found[i] = laplace(data, law, NOISES[i], *noises(i, common), spread, start)
        return found[i]

    fit(middle, None if first is None else first.theta)
    best = found[middle].evidence
    for side in (-1, 1):
        i, last = middle + side, found[middle]
        while 0 <= i < len(NOISES):
            last = fit(i, last.theta)
            best = max(best, last.evidence)
            if last.evidence < best - ENOUGH:
                break
            i += side
    return list(found.values())


class _Noises:
    """Inverse covariances of the cells' losses, and the covariances' log determinants."""

    def __init__(self, data: Data) -> None:
        self.data = data
        self.known: dict[tuple[int, float], tuple[Floats, float]] = {}

    def __call__(self, i: int, common: float) -> tuple[Floats, float]:
        if (i, common) not in self.known:
            data = self.data
            own = NOISES[i] ** 2 + (data.seed_sd or 0.0) ** 2 / data.runs
            shared = common**2 * own.mean() * (data.place[:, None] == data.place)
            covariance = np.diag(own) + shared
            log_det = float(np.linalg.slogdet(covariance)[1])
            self.known[i, common] = np.linalg.inv(covariance), log_det
        return self.known[i, common]


def laplace(
    data: Data,
    law: Law,
    noise: float,
    precision: Floats,
    log_det: float,
    spread: tuple[float, float],
    start: Floats | None,
) -> Fit:
    """The most probable parameters and the curvature there, by Levenberg's and Marquardt's steps.

        cost = (r' P r + z' z) / 2,  r = loss - law,  z = (theta - mean) / sd
    """
    mean, sd = law.prior(*spread, floor=float(data.loss.min()) - 8.0)

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
            if damp > 1e8:
                break
            continue
        done = cost - new_cost < 1e-2
        theta, rest, cost, damp = theta + step, new_rest, new_cost, damp / 10
        if done:
            break
    evidence = -cost - (log_det + np.linalg.slogdet(curve)[1]) / 2 - np.log(sd).sum()
    evidence -= len(data.loss) * np.log(2 * np.pi) / 2
    return Fit(law, theta, np.linalg.inv(curve), noise, spread, float(evidence))


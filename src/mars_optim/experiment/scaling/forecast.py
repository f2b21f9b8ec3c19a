"""The token ratio of each arm at a size and budget that was not run, with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .fit import Data, Fit, grid, held_out
from .law import FORMS, LONGEST, Floats, Knots, Law, Points
from .table import Table

DRAWS = 4000
LEVELS = dict(low95=0.025, low80=0.1, high80=0.9, high95=0.975)


@dataclass(frozen=True, slots=True)
class Posterior:
    """Posterior of the law, given the table: draws of its parameters, some of each fit.

    Args:
        fits: of all forms, with their draws (draws, parameters).
        weights: of the forms, by name.
    """

    fits: tuple[tuple[Fit, Floats], ...]
    weights: dict[str, float]

    def noise(self, table: Table) -> float:
        """Standard deviation of one more run's own loss, in units of the table."""
        own = np.mean([fit.noise for fit, theta in self.fits for _ in theta[:, 0]])
        return math.hypot(float(own), table.data.seed_sd or 0.0)

    def losses(self, at: Points) -> Floats:
        """Losses (draws, points) as the law has them."""
        return np.concatenate([fit.law.losses(theta, at) for fit, theta in self.fits])


@dataclass(frozen=True, slots=True)
class TokenRatio:
    """Tokens that the baseline needs for the arm's loss, over the arm's.

    Args:
        mean: geometric.
        low80: of the interval that holds it with 80 %.
        high80: of it.
        low95: of the interval that holds it with 95 %.
        high95: of it.
    """

    mean: float
    low80: float
    high80: float
    low95: float
    high95: float

    @classmethod
    def of(cls, logs: Floats) -> TokenRatio:
        """From draws of the log ratio."""
        ends = {name: math.exp(np.quantile(logs, q)) for name, q in LEVELS.items()}
        return cls(mean=math.exp(logs.mean()), **ends)


def posterior(table: Table, seed: int = 0) -> Posterior:
    """Fit every form, weigh it by how it foretells what it has not seen, and draw.

    A form's weight is the density of the cells of the largest size under its fit to the others, and
    that of each size's longest runs likewise (the geometric mean of both):

        log p(left out | rest) = log p(all) - log p(rest)

    Args:
        table: of losses.
        seed: of the draws.
    """
    data, rng = table.data, np.random.default_rng(seed)
    knots = Knots.of(data.at)
    fits, scores = [], []
    for form in FORMS:
        law = Law(form, len(table.arms), knots)
        found = grid(data, law)
        told = [held_out(data, kept, found) for kept in _folds(data)]
        fits.append(found)
        scores.append(float(np.mean(told)) if told else 0.0)
    weight = np.exp(np.array(scores) - max(scores))
    weight /= weight.sum()
    drawn = []
    for found, share in zip(fits, weight.tolist(), strict=True):
        among = np.exp(np.array([fit.evidence for fit in found]) - _top(found))
        counts = rng.multinomial(round(DRAWS * share), among / among.sum())
        for fit, count in zip(found, counts.tolist(), strict=True):
            if count:
                root = np.linalg.cholesky(fit.covariance)
                theta = fit.theta + rng.standard_normal((count, len(fit.theta))) @ root.T
                drawn.append((fit, theta))

    names = [form.name for form in FORMS]
    return Posterior(tuple(drawn), dict(zip(names, weight.tolist(), strict=True)))


def law_ratios(found: Posterior, at: Points) -> Floats:
    """Draws of the log token ratio (draws, points) as the law has it, without luck."""
    return np.concatenate([fit.law.log_ratios(theta, at) for fit, theta in found.fits])


def log_ratios(table: Table, found: Posterior, parameters: float, tokens: float) -> Floats:
    """Draws of the log token ratio (draws, arms but the baseline) at a target."""
    return log_ratios_along(table, found, [(parameters, tokens)])[:, 0]


def log_ratios_along(
    table: Table, found: Posterior, targets: Sequence[tuple[float, float]]
) -> Floats:
    """Draws of the log token ratio (draws, targets, arms but the baseline).

    The law's, and what the cells of both arms have of their own there: luck with their settings.
    Where seeds were repeated, their noise is told from it and left out; else nobody can, and the
    ratio is that of one more run of each.

        log ratio = law's + (own loss of the baseline - own loss of the arm) / slope
    """
    rng = np.random.default_rng(1)
    at = Points.joined([table.at(*target, range(1, len(table.arms))) for target in targets])
    shape = (-1, len(targets), len(table.arms) - 1)
    parts = []
    for fit, theta in found.fits:
        logs = fit.law.log_ratios(theta, at)
        luck = rng.standard_normal((len(theta), 1, len(table.arms))) * fit.noise
        there = Points(at.n, at.d + np.clip(logs, -2, 2), at.arm)
        slope = np.maximum(fit.law.slopes(theta, there), 0.05).reshape(shape)
        luck = luck * (slope[..., :1] / fit.fall) ** fit.spread.shrink
        own = (luck[..., :1] - luck[..., 1:]) / slope
        parts.append(np.minimum(logs.reshape(shape) + own, LONGEST))
    return np.concatenate(parts)


def _folds(data: Data) -> list[np.ndarray]:
    """Cells to keep: all but the largest size, all but each size's longest runs."""
    n, t = data.at.n, data.at.d - data.at.n
    longest = np.array([t[n == size].max() for size in n])
    folds = [n < n.max() - 0.01, (t < longest - 0.01)]
    return [kept for kept in folds if kept.any() and {*data.at.arm[kept]} == {*data.at.arm}]


def _top(fits: Sequence[Fit]) -> float:
    return max(fit.evidence for fit in fits)

"""The law of all arms: one curve of the baseline, and how far each arm is ahead on it in tokens.

With n = log parameters, d = log tokens, t = d - n, all from the middle of the table:

    baseline   L0(n, d) = E + a exp(-alpha n) + b exp(-beta d)                ("sum")
               L0(n, d) = E + b exp(-alpha n - beta d)                        ("product")
    arm        L(n, d)  = L0(n + kappa, d + u)                                kappa: "sum" only
               u        = rho exp(-lambda n - mu t) + g n + h t
                          + sum of w_k max(0, n - n_k) + sum of v_k max(0, t - t_k)

rho and kappa rescale an arm's tokens and parameters. lambda and mu, which all arms share, let gains
fade with size and length. g and h let an arm drift by itself, and w and v let the drift change at
the sizes n_k and the lengths t_k of the table, the largest with them: beyond it nothing was seen,
so that an arm far away is known less. The token ratio at (n, d) is exp(u), more with kappa > 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SHARED = 7  # floor, falls with size and tokens, alpha, beta, lambda, mu
OWN = 4  # rho, kappa, g, h of each arm but the baseline; then w and v
LONGEST = 3.4  # log of the largest token ratio told, 30: beyond it the curve is as good as flat
KNOTS = 3  # at most, of each kind


@dataclass(frozen=True, slots=True)
class Form:
    """One form of the law.

    Args:
        name: for messages.
        base: how size and tokens go together.
        fades: gains fade by the shared lambda and mu.
        factors: arms have a factor of parameters.
    """

    name: str
    base: Literal["sum", "product"]
    fades: bool = False
    factors: bool = False


FORMS = (
    Form("sum, gains fade", "sum", fades=True),
    Form("sum, two factors", "sum", factors=True),
    Form("product, gains fade", "product", fades=True),
)


@dataclass(frozen=True, slots=True)
class Knots:
    """Where the drift of an arm may change: log parameters, and log tokens per parameter."""

    sizes: Floats
    lengths: Floats

    @classmethod
    def of(cls, at: Points) -> Knots:
        """The values of a table but the smallest; of many, some with the largest."""
        return cls(_some(at.n), _some(at.d - at.n))


@dataclass(frozen=True, slots=True)
class Points:
    """Where losses are asked for: log parameters and log tokens from the middle, and the arm.

    Args:
        n: (points,)
        d: (points,)
        arm: (points,), 0 is the baseline.
    """

    n: Floats
    d: Floats
    arm: NDArray[np.intp]

    @classmethod
    def joined(cls, parts: Sequence[Points]) -> Points:
        """One after the other."""
        return cls(*(np.concatenate([getattr(p, k) for p in parts]) for k in ("n", "d", "arm")))

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Points:
        return Points(self.n[chosen], self.d[chosen], self.arm[chosen])


@dataclass(frozen=True, slots=True)
class Law:
    """A form of the law for a number of arms.

    Args:
        form: of the law.
        arms: number of them, the baseline with them.
        knots: where drifts may change.
    """

    form: Form
    arms: int
    knots: Knots

    @property
    def _each(self) -> int:
        """Number of each arm's own parameters."""
        return OWN + len(self.knots.sizes) + len(self.knots.lengths)

    def prior(self, drift: float, bend: float, floor: float) -> tuple[Floats, Floats]:
        """Mean and standard deviation of each parameter before the data, as normal.

        Losses are in units of their fall per e-fold of tokens, so that these hold for any loss.

        - exponents: 0.3 within a factor of 1.65 (published ones: 0.15 to 0.5), falls within 2, 2.7
        - lambda, mu: gains fade by 10 % for each e-fold of parameters, +-20 %; with length +-15 %
        - rho: a ratio of 1 within a factor of 2; kappa: within 1.2

        Args:
            drift: standard deviation of g and h.
            bend: of w; that of v is 0.03.
            floor: a loss that lies below all measured.
        """
        form = self.form
        fades, factor = (1.0 if form.fades else 1e-4), (0.2 if form.factors else 1e-4)
        shared = [
            (floor, 10.0),
            (0.0, 1.0),
            (0.0, 0.7),
            (np.log(0.3), 0.5),
            (np.log(0.3), 0.5),
            (0.1 * form.fades, 0.2 * fades),
            (0.0, 0.15 * fades),
        ]
        own = [(0.0, 0.7), (0.0, factor), (0.0, drift), (0.0, drift)]
        own += [(0.0, bend)] * len(self.knots.sizes) + [(0.0, 0.03)] * len(self.knots.lengths)
        mean, sd = np.array(shared + own * (self.arms - 1)).T
        return mean, sd

    def losses(self, theta: Floats, at: Points) -> Floats:
        """The law's losses (..., points) for parameters theta (..., parameters)."""
        floor, fall_n, fall_d, alpha, beta = _base(theta)
        ahead, more = self._ahead(theta, at)
        if self.form.base == "product":
            return floor + fall_d / beta * np.exp(-alpha * at.n - beta * (at.d + ahead))
        size = fall_n / alpha * np.exp(-alpha * (at.n + more))
        return floor + size + fall_d / beta * np.exp(-beta * (at.d + ahead))

    def log_ratios(self, theta: Floats, at: Points) -> Floats:
        """Log token ratio (..., points), at most :data:`LONGEST`, where the floor is reached.

        sum: exp(-beta ratio) = exp(-beta u) - (a / b) exp(beta d - alpha n) (1 - exp(-alpha kappa))
        """
        _, fall_n, fall_d, alpha, beta = _base(theta)
        ahead, more = self._ahead(theta, at)
        if not self.form.factors:
            return np.minimum(ahead, LONGEST)
        parts = fall_n / alpha * beta / fall_d * np.exp(beta * at.d - alpha * at.n)
        left = np.exp(-beta * ahead) + parts * np.expm1(-alpha * more)
        return np.minimum(-np.log(np.maximum(left, 1e-300)) / beta, LONGEST)

    def slopes(self, theta: Floats, at: Points) -> Floats:
        """Fall of the baseline's loss per e-fold of tokens (..., points)."""
        _, _, fall_d, alpha, beta = _base(theta)
        size = alpha * at.n if self.form.base == "product" else 0.0
        return fall_d * np.exp(-size - beta * at.d)

    def jacobian(self, theta: Floats, at: Points) -> Floats:
        """Derivatives of the losses by the parameters theta (parameters,): (points, parameters)."""
        _, fall_n, fall_d, alpha, beta = (float(x[0]) for x in _base(theta))
        own, turns = self._own(theta, at), self._turns(at)
        fade = self._fade(theta, at)
        x, y = at.n + own[:, 1], at.d + own[:, 0] * fade + (own[:, 2:] * turns).sum(axis=1)
        size, by_alpha = 0.0 * at.n, -alpha * at.n
        if self.form.base == "sum":
            size, by_alpha = fall_n / alpha * np.exp(-alpha * x), -1.0 - alpha * x
        crossed = alpha * at.n if self.form.base == "product" else 0.0
        token = fall_d / beta * np.exp(-crossed - beta * y)
        by_ahead = -beta * token
        fading = -by_ahead * own[:, 0] * fade
        shared = [np.ones_like(x), size, token]
        shared += [by_alpha * (token if self.form.base == "product" else size)]
        shared += [(-1.0 - beta * y) * token, fading * at.n, fading * (at.d - at.n)]
        mine = [by_ahead * fade, -alpha * size, *(by_ahead * turns.T)]
        columns = [(at.arm == arm) * column for arm in range(1, self.arms) for column in mine]
        return np.stack(shared + columns, axis=1)

    def _ahead(self, theta: Floats, at: Points) -> tuple[Floats, Floats]:
        """How far each point is ahead, in log tokens and in log parameters (..., points)."""
        own = self._own(theta, at)
        drift = np.einsum("...pk,pk->...p", own[..., 2:], self._turns(at))
        ahead: Floats = own[..., 0] * self._fade(theta, at) + drift
        return ahead, own[..., 1]

    def _own(self, theta: Floats, at: Points) -> Floats:
        """Each point's arm's own parameters (..., points, own); the baseline's are zero."""
        own = theta[..., SHARED:].reshape(*theta.shape[:-1], self.arms - 1, self._each)
        none = np.zeros((*theta.shape[:-1], 1, self._each))
        return np.concatenate([none, own], axis=-2)[..., at.arm, :]

    def _fade(self, theta: Floats, at: Points) -> Floats:
        fade = -theta[..., 5:6] * at.n - theta[..., 6:7] * (at.d - at.n)
        faded: Floats = np.exp(np.clip(fade, -5, 5))
        return faded

    def _turns(self, at: Points) -> Floats:
        """Factors of g, h, w and v (points, 2 + knots)."""
        n, t = at.n[:, None], (at.d - at.n)[:, None]
        bends = np.maximum(0.0, n - self.knots.sizes), np.maximum(0.0, t - self.knots.lengths)
        return np.concatenate([n, t, *bends], axis=1)


def _base(theta: Floats) -> Sequence[Floats]:
    """Floor, falls a alpha and b beta, alpha, beta, each (..., 1)."""
    rest = np.exp(np.clip(theta[..., 1:5], -7, 7))
    return theta[..., :1], *(rest[..., i : i + 1] for i in range(4))


def _some(values: Floats) -> Floats:
    found = np.unique(values.round(2))[1:]
    picked = np.linspace(len(found) - 1, 0, min(KNOTS, len(found))).round().astype(int)
    some: Floats = found[np.sort(picked)]
    return some

"""Estimates with intervals, by leaving out one block of independent samples at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..optim.values import number
from .dots import Dots

Statistic = Callable[..., float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its two-sided interval; low may be -inf and high inf."""

    value: float
    low: float
    high: float

    def map(self, f: Callable[[float], float]) -> Estimate:
        """Apply a rising function to all three."""
        return Estimate(f(self.value), f(self.low), f(self.high))

    def times(self, factor: float) -> Estimate:
        """In another unit; ``factor`` > 0."""
        return self.map(lambda x: x * factor)

    def to_json(self) -> dict[str, Any]:
        """As plain data: what is not finite is None."""
        names = ("value", "low", "high")
        return {n: x if math.isfinite(x := getattr(self, n)) else None for n in names}


def check_confidence(confidence: float) -> None:
    """Raise ValueError unless it is a share, above 0 and below 1."""
    if not 0.0 < number("confidence", confidence) < 1.0:
        raise ValueError(
            f"confidence={confidence!r} must be above 0 and below 1, such as 0.95 for 95 %"
        )


def jackknife(statistic: Statistic, samples: Sequence[Dots], confidence: float) -> Estimate:
    """The statistic of all samples, with Student's t interval from its leave-one-block-out values.

    For a mean this is the usual t interval of the block means. For |E x|^2 where E x = 0 it is too
    wide, by up to a factor sqrt(2): it errs on the safe side.

    Args:
        statistic: of as many :class:`Dots` as there are samples; should be nearly linear in the
            distribution, or be transformed so (the logarithm of a ratio).
        samples: with the same blocks: block r of each comes from the same draws.
        confidence: such as 0.95.
    """
    value = statistic(*samples)
    left_out = _leave_one_out(statistic, samples)
    blocks = len(left_out)
    mean = math.fsum(left_out) / blocks
    variance = (blocks - 1) / blocks * math.fsum((x - mean) ** 2 for x in left_out)
    half = t_quantile(confidence, blocks) * math.sqrt(variance)
    if not math.isfinite(half):
        return Estimate(value, -math.inf, math.inf)
    return Estimate(value, value - half, value + half)


def jackknife_ratio(
    above: Statistic, below: Statistic, samples: Sequence[Dots], confidence: float
) -> Estimate:
    """``above`` / ``below``, by Fieller's theorem: it stays honest where ``below`` is near 0.

    The estimate and the upper end are inf where ``below`` may be 0 as far as the samples tell.
    Both are taken for quantities that cannot be negative.
    """
    a, b = above(*samples), below(*samples)
    tops, bottoms = (_leave_one_out(f, samples) for f in (above, below))
    blocks = len(tops)
    mean_a, mean_b = math.fsum(tops) / blocks, math.fsum(bottoms) / blocks
    scale = (blocks - 1) / blocks * t_quantile(confidence, blocks) ** 2
    pairs = [(x - mean_a, y - mean_b) for x, y in zip(tops, bottoms, strict=True)]
    aa = scale * math.fsum(x * x for x, _ in pairs)
    bb = scale * math.fsum(y * y for _, y in pairs)
    ab = scale * math.fsum(x * y for x, y in pairs)
    # all r with (a - r b)^2 <= aa - 2 r ab + r^2 bb
    p, q, s = b * b - bb, a * b - ab, a * a - aa
    root = math.sqrt(max(0.0, q * q - p * s))
    value = a / b if b > 0 else math.inf
    if p <= 0 or b <= 0:  # ``below`` may be 0: the ratio has a lower bound at the most
        low = s / (q + root) if s > 0 and q + root > 0 else 0.0
        return Estimate(value, low, math.inf)
    return Estimate(value, max(0.0, (q - root) / p), (q + root) / p)


def _leave_one_out(statistic: Statistic, samples: Sequence[Dots]) -> list[float]:
    return [statistic(*(s.without(r) for s in samples)) for r in range(samples[0].blocks)]


@cache
def t_quantile(confidence: float, blocks: int) -> float:
    """Two-sided quantile of Student's t with blocks - 1 degrees of freedom, without scipy."""
    low, high = 0.0, math.pi / 2
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if _t_inside(middle, blocks - 1) < confidence else (low, middle)
    return math.tan(middle) * math.sqrt(blocks - 1)


def _t_inside(theta: float, n: int) -> float:
    """P(|T| < tan(theta) sqrt(n)) for n degrees of freedom (Abramowitz and Stegun, 26.7.3-4)."""
    odd = n % 2
    term = math.cos(theta) if odd else 1.0
    total = 0.0
    for k in range(1 + odd, n, 2):  # cos + 2/3 cos^3 + ... or 1 + 1/2 cos^2 + ...
        total += term
        term *= math.cos(theta) ** 2 * k / (k + 1)
    return (theta + math.sin(theta) * total) * 2 / math.pi if odd else math.sin(theta) * total

"""Does the effect grow or shrink with the model? A slope, with the few degrees it has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from .choice import added
from .sizes import SizeResult, Trend
from .stats import Interval, shifted


def trend(sizes: Sequence[SizeResult], confidence: float) -> Trend | None:
    """The slope over the sizes; None with fewer than two sizes or three pairs.

    What the choice of the rates adds is common to all pairs of a size. Of several lengths of one
    size the first counts: the others would pass for an effect of size.
    """
    sizes = list({size.parameters: size for size in reversed(sizes)}.values())
    points = [(math.log(size.parameters), r) for size in sizes for r in size.ratios]
    if len({x for x, _ in points}) < 2 or len(points) < 3:
        return None
    known = [size for size in sizes if size.ratios]
    means = [(math.log(s.parameters), fmean(s.ratios)) for s in known]
    between = None
    if len(means) > 2:
        between = _with_choice(line_slope(means, confidence), known, [1] * len(known))
    slope = line_slope(points, confidence)
    return Trend(slope=_with_choice(slope, known, [len(s.ratios) for s in known]), between=between)


def _with_choice(slope: Interval, sizes: Sequence[SizeResult], pairs: Sequence[int]) -> Interval:
    """The slope with the choice of the rates in it: sum over sizes of d slope / d level * choice.

    d slope / d level = pairs (x - mean x) / sum of pairs (x - mean x)^2
    """
    x = [math.log(size.parameters) for size in sizes]
    middle = math.fsum(n * v for n, v in zip(pairs, x, strict=True)) / sum(pairs)
    spread = math.fsum(n * (v - middle) ** 2 for n, v in zip(pairs, x, strict=True))
    factors = (n * (v - middle) / spread for n, v in zip(pairs, x, strict=True))
    choices = (size.choice for size in sizes)
    return shifted(slope, added(*zip(choices, factors, strict=True)))


def line_slope(points: Sequence[tuple[float, float]], confidence: float) -> Interval:
    """Least-squares slope with its t interval.

    ``n`` is one more than its degrees of freedom, as for a mean.

    Args:
        points: (x, y); three or more, at two x or more.
        confidence: such as 0.95.
    """
    middle, level = fmean(x for x, _ in points), fmean(y for _, y in points)
    spread = math.fsum((x - middle) ** 2 for x, _ in points)
    slope = math.fsum((x - middle) * (y - level) for x, y in points) / spread
    rest = math.fsum((y - level - slope * (x - middle)) ** 2 for x, y in points)
    n = len(points) - 1
    sd = math.sqrt(rest / (len(points) - 2) * n / spread)  # so that sd / sqrt(n) is its error
    return Interval.of(slope, sd, n, confidence)

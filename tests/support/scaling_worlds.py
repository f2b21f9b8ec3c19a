"""Tables of a world whose law is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mars_optim.experiment.scaling.rows import Row

SIZES = (1e8, 2e8, 4e8)
LENGTHS = (1.0, 2.0, 4.0, 8.0)


def loss(size: float, tokens: float, ahead: float = 0.0) -> float:
    """Loss of an arm that is ahead of the baseline by so much in log tokens."""
    return 1.8 + 0.5 * (size / 1e9) ** -0.33 + 0.4 * (tokens * math.exp(ahead) / 2e10) ** -0.3


def rows(
    ahead: Mapping[str, float],
    *,
    sizes: Sequence[float] = SIZES,
    lengths: Sequence[float] = LENGTHS,
    noise: float = 0.001,
    fade: float = 0.0,
    seeds: int = 0,
    draw: int = 0,
) -> list[Row]:
    """Runs of ``base`` and of arms ahead of it; ``fade`` shrinks gains as a power of size."""
    rng = np.random.default_rng(draw)
    found = []
    for arm, gain in {"base": 0.0, **ahead}.items():
        for size in sizes:
            for length in lengths:
                for seed in range(max(1, seeds)):
                    tokens, left = 20 * length * size, gain * (size / sizes[0]) ** -fade
                    value = loss(size, tokens, left) + float(rng.normal(0, noise))
                    found.append(Row(arm, size, tokens, value, str(seed) if seeds else ""))
    return found

"""Speed-up read off a ladder: how many tokens would the baseline need, fully decayed?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal


@dataclass(frozen=True, slots=True)
class Reading:
    """Tokens that the baseline needs to reach a loss.

    Args:
        tokens: read off the ladder, or its end if the loss lies outside.
        bound: "" for a reading; "at least" if the loss is below the ladder's, "at most" if above.
    """

    tokens: float
    bound: Literal["", "at least", "at most"]


def tokens_to_reach(rungs: Sequence[tuple[int, float]], loss: float) -> Reading:
    """Interpolate on the ladder, linearly in loss over log tokens.

    Where more tokens gave a higher loss (noise), the rungs between take their common mean, which
    favours neither side as a running minimum would.

    Args:
        rungs: (tokens, final loss) of the baseline's runs, each fully decayed; two or more.
        loss: to reach; inf for a run that diverged.
    """
    rungs = sorted(rungs)
    tokens = [t for t, _ in rungs]
    losses = falling_fit([value for _, value in rungs])
    if loss > losses[0]:
        return Reading(tokens[0], "at most")
    for i in range(1, len(rungs)):
        if loss >= losses[i]:
            drop = losses[i - 1] - losses[i]
            share = (losses[i - 1] - loss) / drop if drop else 0.0
            logs = math.log(tokens[i - 1]), math.log(tokens[i])
            return Reading(math.exp(logs[0] + share * (logs[1] - logs[0])), "")
    return Reading(tokens[-1], "at least")


def falling_fit(values: Sequence[float]) -> list[float]:
    """The never rising sequence nearest in least squares, by pooling adjacent violators."""
    pools: list[list[float]] = []
    for value in values:
        pools.append([value])
        while len(pools) > 1 and fmean(pools[-1]) > fmean(pools[-2]):
            last = pools.pop()
            pools[-1] += last
    return [fmean(pool) for pool in pools for _ in pool]

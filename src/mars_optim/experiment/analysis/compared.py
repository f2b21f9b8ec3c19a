"""The runs of one size that are compared, sorted by arm, seed and steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..plan import Plan
from ..plan.sizes import Size
from ..records import Run

Key = tuple[str, int, int]  # (arm, seed, steps)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The runs of one size, sorted.

    Args:
        plan: of the pilot.
        size: that is compared.
        runs: all finished runs of this size.
        compared: the paired ones, by arm, seed and steps.
        missing: comparison runs that have not finished.
        open: those among them on which the verdict rests, of baseline and candidate.
    """

    plan: Plan
    size: Size
    runs: tuple[Run, ...]
    compared: Mapping[Key, Run]
    missing: int
    open: int

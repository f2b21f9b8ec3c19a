"""What a plan may ask for on top: other model sizes, and runs that show the sensitivity."""

from __future__ import annotations

from dataclasses import dataclass

from ...options import option

OWN_SIZE = "main"
"""Name of the plan's own task among its sizes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizePlan:
    """Another size of the task, on which baseline, candidate and control are tuned and compared.

    What is 0 stays as in ``task`` and ``training``.
    """

    layers: int = option(0, "transformer blocks; 0 as in task", low=0, high=1000)
    width: int = option(0, "model width; 0 as in task", low=0, high=65536)
    heads: int = option(0, "attention heads; 0 as in task", low=0, high=1024)
    batch: int = option(0, "windows in a batch; 0 as in task", low=0, high=65536)
    steps: int = option(0, "of one budget unit; 0 as in training", low=0, high=10**12)


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityPlan:
    """Runs that draw the loss over learning rate and gamma; they do not touch the verdict."""

    gammas: tuple[float, ...] = option(
        (), "of the candidate, beside its own; [] for no such runs", low=0.0
    )
    factors: tuple[float, ...] = option(
        (0.25, 0.5, 1.0, 2.0, 4.0),
        "learning rates, in units of the tuned one, for each gamma and for the baseline",
        above=0.0,
    )

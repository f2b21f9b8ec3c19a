"""A flaw, what a check is given, and how it measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ....errors import UserError
from ..any_optimizer import AnyOptimizer
from .trial import Trial

FEW = 6
"""Steps that most checks take."""

Severity = Literal["blocks the arm", "printed beside the result"]
BLOCKS: Severity = "blocks the arm"
BESIDE: Severity = "printed beside the result"


@dataclass(frozen=True, slots=True)
class Flaw:
    """One thing that an optimizer does not keep to.

    Args:
        name: of what is wrong, a few words that never change.
        severity: whether the arm may be run.
        text: one plain sentence.
    """

    name: str
    severity: Severity
    text: str


@dataclass(frozen=True, slots=True)
class Tried:
    """An optimizer with the tensors that it takes.

    Args:
        chosen: what is tried.
        shapes: names of the trial's tensors that it takes and moves.
        closure: whether it needs one.
    """

    chosen: AnyOptimizer
    shapes: tuple[str, ...]
    closure: bool

    def trial(self, shapes: Sequence[str] | None = None, **changes: Any) -> Trial:
        """A new one, on all that it takes, with the closure that it needs."""
        return Trial(self.chosen, shapes or self.shapes, closure=self.closure, **changes)


def distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The largest difference, relative to the largest value; 0 for the same bits, inf for NaN."""
    if all(torch.equal(one[name], other[name]) for name in one):
        return 0.0
    difference = max(float((one[k].double() - other[k].double()).abs().max()) for k in one)
    return difference / max(float(one[k].double().abs().max()) for k in one)


def way_between(start: Mapping[str, Tensor], end: Mapping[str, Tensor], *names: str) -> float:
    """The Euclidean distance, over these tensors or all."""
    parts = [(end[name].double() - start[name].double()).flatten() for name in names or end]
    return float(torch.cat(parts).norm())


def why(error: BaseException) -> str:
    """The reason that an optimizer's own code gives, in a line without the last dot."""
    if isinstance(error, UserError) and error.__cause__:
        error = error.__cause__
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return (text if len(text) < 160 else text[:157] + "...").rstrip(".")

"""Contract that any optimizer must keep before money is spent on it, tried in seconds.

A run may go wrong in silence where an optimizer passes a tensor by, ignores its learning rate or
goes on otherwise from a checkpoint. Each check trains a tiny quadratic and says what it finds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import torch

from ....errors import UserError
from ..any_optimizer import AnyOptimizer
from . import effects, gradients, lifetime
from .flaw import BESIDE, BLOCKS, FEW, Flaw, Tried, why
from .trial import Trial, needs_closure, works


def check_optimizer(chosen: AnyOptimizer, *, matrices_only: bool = False) -> list[Flaw]:
    """Try an optimizer on a tiny problem, on the CPU.

    Args:
        chosen: a class with its arguments.
        matrices_only: whether it is given matrices only, so that what it does to others is told
            and blocks nothing.

    Returns:
        Its flaws, in the order of the checks; none if it keeps to all of them.
    """
    before = lifetime.settings()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            closure = needs_closure(chosen)
        except UserError as error:
            return [Flaw("cannot be made", BLOCKS, str(error))]
        if not works(chosen) and works(chosen, create_graph=True):
            text = "It needs backward(create_graph=True), for second derivatives; a run makes none."
            return [Flaw("needs second derivatives", BLOCKS, text)]
        flaws, taken = _shapes(chosen, closure, matrices_only)
        if "matrix" not in taken:
            return flaws
        tried = Tried(chosen, taken, closure)
        for check in (*gradients.CHECKS, *effects.CHECKS, *lifetime.CHECKS):
            flaws += _guarded(check, tried)
    return [*flaws, *lifetime.changed_settings(before)]


def _guarded(check: Callable[[Tried], Iterator[Flaw]], tried: Tried) -> list[Flaw]:
    """Findings of a check; a failure of the check is a flaw, too."""
    try:
        return list(check(tried))
    except Exception as error:
        what = (check.__doc__ or check.__name__).strip().rstrip(".")
        return [Flaw("fails", BLOCKS, f"It fails where we try this: {what}: {why(error)}.")]


def _shapes(
    chosen: AnyOptimizer, closure: bool, matrices_only: bool
) -> tuple[list[Flaw], tuple[str, ...]]:
    """Effect on each kind of tensor alone, and the kinds that move."""
    words = {
        "matrix": "a matrix",
        "wide": "a wide matrix",
        "vector": "a vector",
        "scalar": "a 0-d tensor",
        "kernel": "a 4-D kernel",
    }
    flaws, taken = [], []
    for shape, what in words.items():
        needed = shape in ("matrix", "wide") or (shape == "vector" and not matrices_only)
        severity = BLOCKS if needed else BESIDE
        try:
            trial = Trial(chosen, [shape], closure=closure)
            before = trial.weights()[shape]
            after = trial.step(FEW).weights()[shape]
        except Exception as error:
            text = f"It does not take {what}: {why(error)}."
            flaws.append(Flaw(f"refuses {what}", severity, text))
            continue
        if torch.equal(before, after):
            text = f"It leaves {what} as it is for {FEW} steps, without a word."
            flaws.append(Flaw(f"passes {what} by", severity, text))
        elif shape in ("matrix", "wide", "vector"):
            taken.append(shape)
    return flaws, tuple(taken)

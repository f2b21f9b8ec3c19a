"""What any optimizer has to keep to before money is spent on it, tried in a second or two.

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
from .finding import BESIDE, BLOCKS, FEW, Flaw, Tried, why
from .trial import Trial, needs_closure


def check_optimizer(chosen: AnyOptimizer, *, matrices_only: bool = False) -> list[Flaw]:
    """Try an optimizer on a tiny problem, on the CPU.

    Args:
        chosen: a class with its arguments.
        matrices_only: whether it is given matrices only, so that what it does to others is told
            and blocks nothing.

    Returns:
        What was found, in the order of the checks; nothing if it keeps to all of them.
    """
    before = lifetime.settings()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            closure = needs_closure(chosen)
        except UserError as error:
            return [Flaw("cannot be made", BLOCKS, str(error))]
        if _needs_graph(chosen):
            text = "It needs backward(create_graph=True), for second derivatives; a run makes none."
            return [Flaw("needs second derivatives", BLOCKS, text)]
        findings, taken = _shapes(chosen, closure, matrices_only)
        if "matrix" not in taken:
            return findings
        tried = Tried(chosen, taken, closure)
        for check in (*gradients.CHECKS, *effects.CHECKS, *lifetime.CHECKS):
            findings += _guarded(check, tried)
    return [*findings, *lifetime.changed_settings(before)]


def _guarded(check: Callable[[Tried], Iterator[Flaw]], tried: Tried) -> list[Flaw]:
    """What a check finds; one that fails is a finding too."""
    try:
        return list(check(tried))
    except Exception as error:
        what = (check.__doc__ or check.__name__).strip().rstrip(".")
        return [Flaw("fails", BLOCKS, f"It fails where we try this: {what}: {why(error)}.")]


def _shapes(
    chosen: AnyOptimizer, closure: bool, matrices_only: bool
) -> tuple[list[Flaw], tuple[str, ...]]:
    """What happens to each kind of tensor alone; and those that move."""
    words = {
        "matrix": "a matrix",
        "wide": "a wide matrix",
        "vector": "a vector",
        "scalar": "a 0-d tensor",
        "kernel": "a 4-D kernel",
    }
    findings, taken = [], []
    for shape, what in words.items():
        needed = shape in ("matrix", "wide") or (shape == "vector" and not matrices_only)
        severity = BLOCKS if needed else BESIDE
        try:
            trial = Trial(chosen, [shape], closure=closure)
            before = trial.weights()[shape]
            after = trial.step(FEW).weights()[shape]
        except Exception as error:
            findings.append(
                Flaw(f"refuses {what}", severity, f"It does not take {what}: {why(error)}.")
            )
            continue
        if torch.equal(before, after):
            text = f"It leaves {what} as it is for {FEW} steps, without a word."
            findings.append(Flaw(f"passes {what} by", severity, text))
        elif shape in ("matrix", "wide", "vector"):
            taken.append(shape)
    return findings, tuple(taken)


def _needs_graph(chosen: AnyOptimizer) -> bool:
    """Whether it fails on plain gradients and does not on those that keep their graph."""
    try:
        Trial(chosen, ["matrix"]).step(2)
    except Exception:
        trial = Trial(chosen, ["matrix"])
        trial.create_graph = True
        try:
            trial.step(2)
        except Exception:
            return False
        return True
    return False

"""Checks of gradients: what a step does to them, and those that are missing, late, zero, sparse."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .flaw import BESIDE, BLOCKS, FEW, Flaw, Tried, distance, way_between, why


def _gradient_kept(tried: Tried) -> Iterator[Flaw]:
    """A step leaves p.grad alone and keeps no reference to it."""
    trial = tried.trial()
    for _ in range(FEW):
        trial.gradient()
        grads = {name: (p.grad, _copy(p.grad)) for name, p in trial.params.items()}
        trial.update()
        if tried.closure:
            break  # it makes gradients itself
        for name, (given, copy) in grads.items():
            now = trial.params[name].grad
            if now is None:
                text = "Its step takes p.grad away (None): what reads the gradient after it fails."
                yield Flaw("takes the gradient away", BESIDE, text)
                return
            if now is not given or not _same(given, copy):
                text = "Its step writes into p.grad: what reads the gradient after it reads another"
                yield Flaw("writes the gradient", BESIDE, f"{text}.")
                return
    yield from _gradient_forgotten(tried)


def _gradient_forgotten(tried: Tried) -> Iterator[Flaw]:
    """Gradients in the same memory at each step."""
    if tried.closure:
        return
    plain, reused = tried.trial(), tried.trial()
    reused.memory = {name: torch.zeros_like(p) for name, p in reused.params.items()}
    plain.step(FEW)
    reused.step(FEW)
    if distance(plain.weights(), reused.weights()):
        yield Flaw(
            "keeps a reference to the gradient",
            BESIDE,
            "It keeps p.grad itself: where the memory is used again (zero_grad(set_to_none=False), "
            "DDP's bucket views) it steps otherwise.",
        )


def _odd_gradients(tried: Tried) -> Iterator[Flaw]:
    """Gradients that are missing, late, zero or sparse."""
    trial = tried.trial()
    trial.silent = {"wide"} & set(trial.params)
    start = trial.weights()
    try:
        between = trial.step(FEW).weights()
        trial.silent = set()
        late = trial.step(FEW).weights()
    except Exception as error:
        text = f"It fails where a parameter has no gradient for {FEW} steps: {why(error)}."
        yield Flaw("fails without a gradient", BLOCKS, text)
    else:
        if "wide" in start and not torch.equal(start["wide"], between["wide"]):
            text = "It moves a parameter that has no gradient."
            yield Flaw("moves without a gradient", BESIDE, text)
        fresh = tried.trial().step(FEW).weights()
        if "wide" in start:
            share = way_between(between, late, "wide") / way_between(start, fresh, "wide")
            if not 0.5 < share < 2:
                yield Flaw(
                    "steps differently after a late gradient",
                    BESIDE,
                    f"A parameter whose gradient comes {FEW} steps late takes {share:.2g} of the "
                    "first steps of others.",
                )
    trial = tried.trial()
    trial.zero = set(trial.params)
    try:
        after = trial.step(FEW).weights()
    except Exception as error:
        text = (
            f"It fails on a gradient of zeros, as behind a layer that starts at zero: {why(error)}."
        )
        yield Flaw("fails on zero gradients", BLOCKS, text)
        return
    if not all(w.isfinite().all() for w in after.values()):
        text = "A gradient of zeros, as behind a layer that starts at zero, makes NaN."
        yield Flaw("zero gradients make NaN", BLOCKS, text)


def _sparse(tried: Tried) -> Iterator[Flaw]:
    """A sparse gradient, as nn.Embedding(sparse=True) makes."""
    if tried.closure:
        return
    trial = tried.trial(["matrix"])
    trial.gradient()
    p = trial.params["matrix"]
    assert p.grad is not None
    p.grad = p.grad.to_sparse(1)
    before = trial.weights()
    try:
        trial.update()
    except Exception:
        return  # refused aloud, as most do
    if not torch.equal(before["matrix"], p.detach()):
        return
    text = "It leaves a matrix with a sparse gradient as it is, without a word."
    yield Flaw("passes sparse gradients by", BESIDE, text)


def _copy(grad: Tensor | None) -> Tensor:
    assert grad is not None
    return grad.clone()


def _same(grad: Tensor | None, copy: Tensor) -> bool:
    return grad is not None and torch.equal(grad, copy)


CHECKS = (_gradient_kept, _odd_gradients, _sparse)

"""Scripts that show what a class of optimizers does, whatever package it is of.

Each claim is its docstring: "Whether ..."; SHOWN has the classes of which it is true.
"""

from __future__ import annotations

import importlib
import io
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def parameter(*shape: int) -> nn.Parameter:
    """Ones, with a gradient of ones."""
    made = nn.Parameter(torch.ones(shape))
    made.grad = torch.ones(shape)
    return made


def moved(optimizer: Any, *parameters: nn.Parameter, steps: int = 1) -> list[float]:
    """How far each goes."""
    before = [p.detach().clone() for p in parameters]
    for _ in range(steps):
        optimizer.step()
    return [float((p.detach() - b).norm()) for p, b in zip(parameters, before, strict=True)]


def in_training(optimizer: Any) -> Any:
    """After its train(), where it has that."""
    getattr(optimizer, "train", lambda: None)()
    return optimizer


def writes_gradient(make: Callable[..., Any], **keys: Any) -> bool:
    """Whether a step leaves other numbers in p.grad."""
    p = parameter(8, 8)
    optimizer = in_training(make([{"params": [p], **keys}]))
    for scale in (1.0, 2.0, 3.0):
        given = scale * torch.linspace(-1, 1, 64).reshape(8, 8)
        p.grad = given.clone()
        optimizer.step()
    return p.grad is not None and not torch.equal(p.grad, given)


def takes_gradient_away(make: Callable[..., Any]) -> bool:
    """Whether a step leaves p.grad = None."""
    p = parameter(8, 8)
    make([p]).step()
    return p.grad is None


def moves_at_zero(make: Callable[..., Any]) -> bool:
    """Whether a step at lr = 0 moves a parameter."""
    p = parameter(8, 8)
    optimizer = in_training(make([p]))
    moved(optimizer, p, steps=2)
    optimizer.param_groups[0]["lr"] = 0.0
    return moved(optimizer, p)[0] > 0


def decay_is_coupled(make: Callable[..., Any]) -> bool:
    """Whether what decay adds to a step is far from lr times decay times the weights, 0.001."""
    ways = []
    for decay in (0.0, 0.1):
        p = parameter(8, 8)
        optimizer = make([p], lr=0.01, weight_decay=0.0)
        for _ in range(3):
            optimizer.step()
        optimizer.param_groups[0]["weight_decay"] = decay
        before = p.detach().clone()
        optimizer.step()
        ways.append(p.detach() - before)
        weights = before
    return float((ways[0] - ways[1] - 0.001 * weights).norm() / (0.001 * weights).norm()) > 0.5


def needs_graph(make: Callable[..., Any]) -> bool:
    """Whether a step fails after backward() and does not after backward(create_graph=True)."""
    for keep in (False, True):
        p = nn.Parameter(torch.ones(4, 4))
        optimizer = make([p])
        torch.autograd.backward(p.pow(3).sum(), create_graph=keep)
        try:
            optimizer.step()
        except RuntimeError:
            if keep:
                return False
        else:
            return keep
    return False


def judging_moves(make: Callable[..., Any]) -> bool:
    """Whether evaluating, eval() and train() again, changes the bits of the weights."""
    p = parameter(64, 64)
    optimizer = in_training(make([p]))
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        p.grad = torch.randn(64, 64, generator=generator)
        optimizer.step()
    before = p.detach().clone()
    optimizer.eval()
    optimizer.train()
    return not torch.equal(before, p.detach())


def late_steps(make: Callable[..., Any]) -> bool:
    """Whether a parameter whose gradient comes six steps late first goes another way."""
    p, late = parameter(8, 8), parameter(8, 8)
    late.grad = None
    optimizer = make([p, late])
    first = moved(optimizer, p)[0]
    for _ in range(5):
        optimizer.step()
    late.grad = torch.ones(8, 8)
    return not 0.8 < moved(optimizer, late)[0] / first < 1.25


def closure_without_gradients(make: Callable[..., Any]) -> bool:
    """Whether step(closure) calls it with gradients off, so that backward() fails in it."""
    seen = []
    optimizer = make([parameter(8, 8)])
    optimizer.step(lambda: seen.append(torch.is_grad_enabled()))
    return seen == [False]


def fails_on_zeros(make: Callable[..., Any]) -> bool:
    """Whether a first gradient of zeros, as behind a layer that starts at zero, is an error."""
    p = parameter(8, 8)
    p.grad = torch.zeros(8, 8)
    try:
        make([p]).step()
    except Exception:
        return True
    return False


def no_plain_state(make: Callable[..., Any]) -> bool:
    """Whether its state_dict() is refused by torch.load(weights_only=True)."""
    p = parameter(8, 8)
    optimizer = make([p])
    optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    try:
        torch.load(file, weights_only=True)
    except pickle.UnpicklingError:
        return True
    return False


def other_bits(make: Callable[..., Any], dtype: torch.dtype, **options: Any) -> bool:
    """Whether a run that goes on from its state_dict() has other bits (bfloat16 parameters).

    torch's load_state_dict casts float32 moments to the dtype of their parameter.
    """
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(8, 8, generator=generator).to(dtype) for _ in range(12)]
    whole, half = (nn.Parameter(torch.ones(8, 8, dtype=dtype)) for _ in range(2))
    one, optimizer = make([whole], **options), make([half], **options)
    for step, grad in enumerate(grads):
        if step == 6:
            state, half = optimizer.state_dict(), nn.Parameter(half.detach().clone())
            optimizer = make([half], **options)
            optimizer.load_state_dict(state)
        whole.grad, half.grad = grad.clone(), grad.clone()
        one.step()
        optimizer.step()
    return not torch.equal(whole, half)


SHOWN: list[tuple[Callable[..., bool], str, str, dict[str, Any]]] = [
    (writes_gradient, "pytorch_optimizer", "ScheduleFreeAdamW", {}),
    (writes_gradient, "pytorch_optimizer", "Muon", {"use_muon": True}),
    (takes_gradient_away, "heavyball", "AdamW", {}),
    (takes_gradient_away, "heavyball", "SOAP", {}),
    (moves_at_zero, "pytorch_optimizer", "LaProp", {}),
    (moves_at_zero, "pytorch_optimizer", "ScheduleFreeAdamW", {}),
    (decay_is_coupled, "pytorch_optimizer", "ADOPT", {}),
    (decay_is_coupled, "pytorch_optimizer", "AdEMAMix", {}),
    (needs_graph, "pytorch_optimizer", "SophiaH", {}),
    (needs_graph, "pytorch_optimizer", "AdaHessian", {}),
    (judging_moves, "pytorch_optimizer", "ScheduleFreeAdamW", {}),
    (judging_moves, "schedulefree", "AdamWScheduleFree", {}),
    (late_steps, "pytorch_optimizer", "StableAdamW", {}),
    (late_steps, "pytorch_optimizer", "LaProp", {}),
    (closure_without_gradients, "apollo_torch", "APOLLOAdamW", {}),
    (fails_on_zeros, "heavyball", "PSGDKron", {}),
    (no_plain_state, "pytorch_optimizer", "SCION", {}),
    (other_bits, "heavyball", "AdamW", {"dtype": torch.bfloat16}),
    (other_bits, "came_pytorch", "CAME", {"dtype": torch.bfloat16, "lr": 0.01}),
]
"""A script, a module, a class, and the script's further arguments."""


def show(script: Callable[..., bool], module: str, name: str, further: dict[str, Any]) -> bool:
    """Run a script on a class."""
    cls = getattr(importlib.import_module(module), name)
    return script(cls, **further)


def what(script: Callable[..., bool]) -> str:
    """Claim of a script of SHOWN: its docstring without "Whether"."""
    said = " ".join((script.__doc__ or "").split()).removeprefix("Whether ")
    return said[0].upper() + said[1:]

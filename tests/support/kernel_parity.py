"""A fast path and the oracle ``reference.update`` side by side, on tensors of many shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mars_optim.optim import backends, reference
from mars_optim.optim.backends import Bucket
from mars_optim.optim.hyperparameters import Settings
from mars_optim.optimizer_options import MATRIX_RULES
from tests.support.cases import compiler_found, needs_compiler

# triton's kernels are compared in a process of their own: see test_triton_kernels.py
FAST: list[Any] = [
    pytest.param(name, marks=needs_compiler, id=name) if name == "native" else name
    for name in backends.BACKENDS
    if name not in ("reference", "triton")
]
HERE = [name for name in FAST if isinstance(name, str)] + ["native"] * compiler_found

VECTORS: dict[str, Callable[[], Tensor]] = {
    "one": lambda: torch.empty(1),
    "three": lambda: torch.empty(3),
    "odd": lambda: torch.empty(127),
    "no power of two": lambda: torch.empty(4099),
    "none": lambda: torch.empty(0),
    "scalar": lambda: torch.empty(()),
}
MATRICES: dict[str, Callable[[], Tensor]] = {
    "tall": lambda: torch.empty(5, 3),
    "wide": lambda: torch.empty(3, 7),
    "row": lambda: torch.empty(1, 127),
    "kernel": lambda: torch.empty(4, 2, 3, 3),
}
STRIDED: dict[str, Callable[[], Tensor]] = {
    "transposed": lambda: torch.empty(6, 4).t(),
    "channels_last": lambda: torch.empty(2, 3, 4, 5).to(memory_format=torch.channels_last),
}
# norms below and above every clip tested, and no gradient at all
SIZES = (0.01, 1.0, 30.0, 0.0)


def tensors_for(settings: Settings, backend: str) -> list[Tensor]:
    made = [make() for make in MATRICES.values()]
    if settings.rule not in MATRIX_RULES:
        made += [make() for make in VECTORS.values()]
    if backend != "fused":
        made += [make() for make in STRIDED.values()]
    return made


def fill(like: list[Tensor], seed: int, dtype: torch.dtype, *, grads: bool = False) -> list[Tensor]:
    """Random values in the layout of ``like``."""
    generator = torch.Generator().manual_seed(seed)
    filled = []
    for i, tensor in enumerate(like):
        values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        values = values * SIZES[(i + seed) % len(SIZES)] if grads else values
        filled.append(torch.empty_like(tensor, dtype=dtype).copy_(values))
    return filled


def compare(
    backend: str,
    settings: Settings,
    *,
    like: list[Tensor] | None = None,
    dtype: torch.dtype = torch.float64,
    oracle_dtype: torch.dtype = torch.float64,
    steps: int = 3,
    done: int = 0,
    rtol: float = 1e-11,
    atol: float = 1e-13,
) -> None:
    """Step the backend and the oracle side by side; parameters and state must agree."""
    like = tensors_for(settings, backend) if like is None else like
    sides = []
    for name, its_dtype in ((backend, dtype), ("reference", oracle_dtype)):
        params = fill(like, 0, its_dtype)
        states: list[reference.State] = [{} for _ in params]
        for i, (param, state) in enumerate(zip(params, states, strict=True)):
            backends.init_state(param, state, backends.state_dtypes(param.dtype, settings))
            state["step"] += done + i % 2  # each parameter counts its own steps
        sides.append((backends.BACKENDS[name], params, states, its_dtype))
    for step in range(steps):
        for stepper, params, states, its_dtype in sides:
            grads = fill(like, 7 + step, its_dtype, grads=True)
            given_grads = [g.clone() for g in grads]
            bucket = Bucket(params, grads, states, settings)
            assert stepper.why_not(bucket) is None
            stepper.step(bucket)
            assert all(torch.equal(a, b) for a, b in zip(grads, given_grads, strict=True))
        (_, ours, our_states, _), (_, theirs, their_states, _) = sides
        for x, y, state, wanted in zip(ours, theirs, our_states, their_states, strict=True):
            assert state.keys() == wanted.keys()
            for got, want in ((x, y), *((state[k], wanted[k]) for k in state)):
                torch.testing.assert_close(got.to(want.dtype), want, rtol=rtol, atol=atol)


def settings_of(**options: Any) -> Settings:
    defaults = dict(lr=0.01, betas=(0.95, 0.99), eps=1e-8, weight_decay=0.1, gamma=0.025)
    return Settings(**{**defaults, "clip": None, "correction": "approx", **options})

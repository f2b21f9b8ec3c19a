"""Float32 Triton kernels beside the float64 oracle, for the parity tests of ``tests/optim``."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from mars_optim.optim import backends, reference
from mars_optim.optim.backends import Amp, Bucket
from mars_optim.optim.backends.cuda import triton_backend
from mars_optim.optim.backends.cuda.triton_tables import CHUNK
from mars_optim.optim.hyperparameters import Settings
from tests.support.kernel_parity import fill

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"

# the first two have whole chunks and a rest
SHAPES = [(CHUNK + 3,), (2, CHUNK), (1,), (3,), (127,), (0,), (), (5, 3), (4, 2, 3, 3)]
SMALL = [(127,), (), (5, 3)]


def tensors(shapes: list[tuple[int, ...]]) -> list[Tensor]:
    made = [torch.empty(shape, device=DEVICE) for shape in shapes]
    if shapes is SHAPES:
        made.append(torch.empty(6, 4, device=DEVICE).t())
        made.append(torch.empty(2, 3, 4, 5, device=DEVICE).to(memory_format=torch.channels_last))
    return made


def states_of(params: list[Tensor], settings: Settings, done: int = 0) -> list[reference.State]:
    """Each parameter counts its own steps."""
    states: list[reference.State] = [{} for _ in params]
    for i, (param, state) in enumerate(zip(params, states, strict=True)):
        backends.init_state(param, state, backends.state_dtypes(param.dtype, settings))
        state["step"] = (state["step"] + done + i % 2).to(param.device)
    return states


def wide(states: list[reference.State]) -> list[reference.State]:
    """Copies in float64, but of the steps."""
    return [{k: v.clone() if k == "step" else v.double() for k, v in s.items()} for s in states]


def number(value: float | None) -> Tensor | None:
    return None if value is None else torch.tensor(value, device=DEVICE)


def compare(
    settings: Settings,
    *,
    shapes: list[tuple[int, ...]] = SMALL,
    steps: int = 2,
    done: int = 0,
    grad_scale: float | None = None,
    found_inf: float | None = None,
) -> None:
    """Step float32 kernels beside the float64 oracle; parameters and state must agree."""
    params = fill(tensors(shapes), 0, torch.float32)
    exact = [x.double() for x in params]
    states = states_of(params, settings, done)
    for state, last_grad in zip(states, fill(params, 3, torch.float32, grads=True), strict=True):
        if "last_grad" in state:
            state["last_grad"].copy_(last_grad)
    exact_states = wide(states)
    for step in range(steps):
        grads = fill(tensors(shapes), 7 + step, torch.float32, grads=True)
        given = [g * (grad_scale or 1.0) for g in grads]
        kept = [g.clone() for g in given]
        amp = Amp(number(grad_scale), number(found_inf))
        triton_backend.step(Bucket(params, given, states, settings, amp=amp))
        assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))
        reference.update(exact, [g.double() for g in grads], exact_states, settings)
        for x, y, state, wanted in zip(params, exact, states, exact_states, strict=True):
            assert state.keys() == wanted.keys()
            for got, want in ((x, y), *((state[k], wanted[k]) for k in state)):
                torch.testing.assert_close(got.to(want.dtype), want, rtol=2e-6, atol=2e-6)

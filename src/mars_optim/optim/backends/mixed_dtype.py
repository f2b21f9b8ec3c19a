"""State, gradients and parameters of different dtypes: compute in the widest, store in each own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..types import BUFFERS, State
from .base import Bucket


def needed(bucket: Bucket) -> bool:
    """Whether the tensors of a bucket differ in dtype, or must be rounded by chance.

    Or are float16, in which eps=1e-8 is 0, and an element without a gradient 0 / 0.
    """
    dtypes = {x.dtype for x in bucket.params} | {g.dtype for g in bucket.grads}
    dtypes |= {state[name].dtype for state in bucket.states for name in BUFFERS if name in state}
    return len(dtypes) > 1 or bucket.settings.stochastic_rounding or torch.float16 in dtypes


def step(of_one_dtype: Callable[[Bucket], None], bucket: Bucket) -> None:
    """One step of a backend in float32 (float64 if anything is), stored in each own dtype."""
    params, states, settings = bucket.params, bucket.states, bucket.settings
    dtype = torch.float32
    for tensor in (*params, *bucket.grads, *(v for s in states for v in _moments(s).values())):
        dtype = torch.promote_types(dtype, tensor.dtype)
    wide_params = [p.to(dtype) for p in params]
    wide_states = [
        {"step": s["step"].clone(), **{k: v.to(dtype) for k, v in _moments(s).items()}}
        for s in states
    ]
    wide_grads = [g.to(dtype) for g in bucket.grads]
    of_one_dtype(replace(bucket, params=wide_params, grads=wide_grads, states=wide_states))
    generator = generator_of(params, wide_states)
    for param, wide in zip(params, wide_params, strict=True):
        if wide is not param:
            by_chance = settings.stochastic_rounding and param.dtype == torch.bfloat16
            param.copy_(stochastic_round(wide, generator) if by_chance else wide)
    for state, wide_state in zip(states, wide_states, strict=True):
        for key, value in _moments(state).items():
            if wide_state[key] is not value:
                value.copy_(wide_state[key])
        state["step"].copy_(wide_state["step"])  # last: it counts steps that were taken


def generator_of(params: list[Tensor], states: list[State]) -> torch.Generator | None:
    """Random numbers that are a function of the step and of the tensors' sizes.

    So a resumed run rounds as before, and replicas alike, whatever else draws random numbers. None,
    for the global generator, where reading the step would wait for a device.
    """
    step = states[0]["step"]
    if step.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    size = sum(param.numel() for param in params)
    seed = (int(step) * 2654435761 + size) % 2**32  # the CPU's generator reads 32 bits
    return torch.Generator(params[0].device).manual_seed(seed)


def stochastic_round(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """float32 -> bfloat16, up or down by chance so that the mean is x: no small step is lost.

    bfloat16 is the upper half of float32, so random bits are added to the lower half, which is then
    cut off. What is not finite is rounded as always.
    """
    bits = x.to(torch.float32).view(torch.int32)
    noise = torch.randint(
        0, 1 << 16, x.shape, dtype=torch.int32, device=x.device, generator=generator
    )
    rounded = ((bits + noise) & -(1 << 16)).view(torch.float32)
    return torch.where(torch.isfinite(x), rounded, x.to(torch.float32)).to(torch.bfloat16)


def _moments(state: State) -> State:
    """The state's own floating tensors that have the parameter's shape."""
    return {key: state[key] for key in BUFFERS if key in state}

"""The Triton kernels round as the oracle does, and by chance without bias.

Run as ``triton_parity.py`` is, and for the same reason not collected by itself.
"""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from mars_optim.optim.backends import Bucket, loop, mixed_dtype
from mars_optim.optim.backends.cuda import triton_backend
from mars_optim.optim.backends.cuda.triton_tables import CHUNK
from tests.support.kernel_parity import fill, settings_of
from tests.support.triton_kernels import DEVICE, INTERPRETED, SHAPES, SMALL, states_of, tensors

pytest.importorskip("triton")

# one unit in the last place
ULP = {torch.float32: 1e-6, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}


@pytest.mark.parametrize(
    ("dtype", "state_dtype", "last_dtype"),
    [
        (torch.float32, None, torch.bfloat16),
        (torch.bfloat16, None, None),
        (torch.bfloat16, torch.float32, torch.bfloat16),
        (torch.float16, None, None),
        (torch.float16, torch.float32, torch.float32),
        (torch.float32, torch.bfloat16, torch.float32),
    ],
    ids=str,
)
@pytest.mark.parametrize("clip", [None, 0.1])
def test_dtypes_are_rounded_once_after_a_step_in_float32(
    clip: float | None,
    dtype: torch.dtype,
    state_dtype: torch.dtype | None,
    last_dtype: torch.dtype | None,
) -> None:
    settings = settings_of(
        rule="adamw", clip=clip, state_dtype=state_dtype, last_grad_dtype=last_dtype, eps=1e-4
    )
    start = fill(tensors(SHAPES[:1] + SMALL), 0, dtype)
    grads = [g.clamp(-50, 50) for g in fill(start, 7, dtype, grads=True)]
    ends = []
    for step in (triton_backend.step, partial(mixed_dtype.step, loop.step)):
        params = [x.clone() for x in start]
        states = states_of(params, settings)
        for state in states:
            for name, tensor in state.items():
                if name != "step":
                    tensor.fill_(0.25)
        step(Bucket(params, grads, states, settings))
        ends.append((params, states))
    (params, states), (wanted, wanted_states) = ends
    for x, y, state, other in zip(params, wanted, states, wanted_states, strict=True):
        for got, want in ((x, y), *((state[k], other[k]) for k in state)):
            assert got.dtype == want.dtype
            ulp = ULP[want.dtype]
            torch.testing.assert_close(got, want, rtol=ulp, atol=min(ulp, 1e-5))
            if not INTERPRETED and got.numel() > 1000:  # a float32 at the edge may fall off it
                assert (got == want).double().mean() > 0.98


def test_steps_of_bfloat16_are_rounded_by_chance_without_bias() -> None:
    settings = settings_of(
        rule="lion", lr=0.001, weight_decay=0.0, stochastic_rounding=True, clip=None
    )
    torch.manual_seed(0)
    x = torch.ones(4 * CHUNK, device=DEVICE, dtype=torch.bfloat16)
    triton_backend.step(Bucket([x], [torch.ones_like(x)], states_of([x], settings), settings))
    below = 1.0 - 2.0**-8
    assert set(x.tolist()) == {1.0, below}
    # 1 - 0.001 by a share of 0.256 of steps of 2^-8; the mean's deviation is 1.3e-5
    assert abs(x.double().mean().item() - 0.999) < 6e-5
    # neighbours and programs draw apart
    down = (x < 1.0).double().view(4, CHUNK)
    assert torch.corrcoef(down).fill_diagonal_(0).abs().max() < 0.08
    not_finite = torch.tensor([math.inf, -math.inf, math.nan], dtype=torch.bfloat16, device=DEVICE)
    kept = not_finite.clone()
    triton_backend.step(
        Bucket([kept], [torch.ones_like(kept)], states_of([kept], settings), settings)
    )
    torch.testing.assert_close(kept, not_finite, equal_nan=True)

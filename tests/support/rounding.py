"""How far the same steps may lie apart where the order of additions differs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mars_optim import MARS

ORTHOGONALISES = ("muon", "shampoo")
BFLOAT16 = 5e-4
"""Distance of weights after steps of lr 0.01: Newton-Schulz of float32 weights runs in bfloat16,
whose products differ by a hundredth between processors with and without instructions for them. In
float64 it does not."""


def assert_steps_agree(
    optimizer: MARS, params: Iterable[Tensor], twins: Iterable[Tensor], *, rtol: float, atol: float
) -> None:
    """Weights within rtol and atol; float32 ones that an orthogonal factor steps, BFLOAT16."""
    orthogonal = {
        id(p)
        for group in optimizer.param_groups
        if group["rule"] in ORTHOGONALISES
        for p in group["params"]
        if p.dtype == torch.float32 and p.ndim > 1
    }
    for p, q in zip(params, twins, strict=True):
        torch.testing.assert_close(p, q, rtol=rtol, atol=BFLOAT16 if id(p) in orthogonal else atol)

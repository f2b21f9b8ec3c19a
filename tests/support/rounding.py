"""How far the same steps may lie apart where the order of additions differs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mars_optim import MARS

ORTHOGONALISES = ("muon", "shampoo")
BFLOAT16 = 5e-4
"""Distance of weights after steps of lr 0.01: Newton-Schulz runs in bfloat16, whose products differ
by a hundredth between processors with and without instructions for them."""


def assert_steps_agree(
    optimizer: MARS, params: Iterable[Tensor], twins: Iterable[Tensor], *, rtol: float, atol: float
) -> None:
    """Weights within rtol and atol, those that an orthogonal factor steps within BFLOAT16."""
    rules = {id(p): g["rule"] for g in optimizer.param_groups for p in g["params"]}
    for p, q in zip(params, twins, strict=True):
        near = BFLOAT16 if rules[id(p)] in ORTHOGONALISES and p.ndim > 1 else atol
        torch.testing.assert_close(p, q, rtol=rtol, atol=near)

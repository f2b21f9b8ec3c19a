"""Classes, parameters, gradients and runs that the tests of the optimizers share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim import MARS, MARSM, MARSAdamW, MARSLion, MARSShampoo
from mars_optim.optim.backends.cpu import build

compiler_found = build.library("float").c is not None
needs_compiler = pytest.mark.skipif(not compiler_found, reason=build.library("float").note)

CLASSES = [MARSAdamW, MARSLion, MARSShampoo, MARSM]
RULE_OF = {MARSAdamW: "adamw", MARSLion: "lion", MARSShampoo: "shampoo", MARSM: "muon"}

# Every optimizer of the package, as a function of the parameters and options.
OPTIMIZERS: dict[str, Callable[..., MARS]] = {
    f"{cls.__name__}-{correction}": (
        lambda params, cls=cls, correction=correction, **options: cls(
            params, **{"correction": correction, **options}
        )
    )
    for cls in CLASSES
    for correction in ("approx", "folded")
}

# A matrix, a convolution, a vector and a scalar: every kind of parameter that a step sees.
SHAPES = {"matrix": (5, 3), "kernel": (4, 2, 3, 3), "vector": (7,), "scalar": ()}

# How the backends are asked for from outside.
BACKENDS: dict[str, dict[str, Any]] = {
    "auto": {},
    "foreach": {"foreach": True},
    "reference": {"foreach": False, "fused": False},
}


def make_params(
    shapes: Iterable[tuple[int, ...]] = tuple(SHAPES.values()),
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> list[nn.Parameter]:
    """The same parameters for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return [
        nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype))
        for shape in shapes
    ]


def make_grads(params: Iterable[Tensor], step: int, *, scale: float = 1.0) -> list[Tensor]:
    """Gradients that depend on the step alone; some norms exceed 1 and some do not."""
    generator = torch.Generator().manual_seed(1000 + step)
    grads = []
    for i, param in enumerate(params):
        size = scale * (0.05, 1.0, 4.0)[(i + step) % 3]
        grad = torch.randn(param.shape, generator=generator, dtype=torch.float64) * size
        grads.append(grad.to(param.dtype))
    return grads


def run(
    optimizer: torch.optim.Optimizer,
    params: list[nn.Parameter],
    steps: Iterable[int] = range(4),
    *,
    scale: float = 1.0,
) -> list[Tensor]:
    """Step with the gradients of ``steps``; the parameters afterwards, as copies."""
    for step in steps:
        for param, grad in zip(params, make_grads(params, step, scale=scale), strict=True):
            param.grad = grad
        optimizer.step()
    return copies(params)


def copies(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def same(some: Iterable[Tensor], others: Iterable[Tensor]) -> bool:
    """Equal bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))

"""The published implementations' trajectories, recorded once, are ours too."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim import MARS, MARSM, MARSAdamW, MARSLion, MARSShampoo
from tests.support.cases import BACKENDS

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "trajectories.json").read_text())
CASES = {case["name"]: case for case in GOLDEN["cases"]}
CLASS_OF = {"mars-adamw": MARSAdamW, "mars-lion": MARSLion, "mars-shampoo": MARSShampoo}


def construct(case: dict[str, Any], params: list[nn.Parameter], backend: dict[str, Any]) -> MARS:
    hyper = dict(case["hyper"])
    if "mars_type" in hyper:
        return CLASS_OF[hyper.pop("mars_type")](params, **hyper, **backend)
    return MARSM(
        params,
        lr=hyper["lr"],
        betas=(hyper["momentum"], 0.99),
        weight_decay=hyper["wd"],
        gamma=hyper["gamma"],
        ns_steps=hyper["ns_steps"],
        betas_1d=hyper["adamw_betas"],
        correction="folded" if "no-stored-gradient" in case["name"] else "approx",
        **backend,
    )


SHAPES = {"matrix": (6, 4), "wide": (3, 7), "vector": (5,), "scale": (4,)}
STEPS = 12


def inputs(case: dict[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Parameters and gradients that the recorded optimizers were given.

    The norm of a gradient is about 3 in every third step, where the clip acts, and 0.3 between.
    """
    generator = torch.Generator().manual_seed(case["seed"])

    def drawn(size: float = 0.0) -> dict[str, Tensor]:
        tensors = {}
        for key, shape in SHAPES.items():
            x = torch.randn(shape, generator=generator, dtype=torch.float64)
            tensors[key] = (x * size / x.numel() ** 0.5 if size else x).to(
                getattr(torch, case["dtype"])
            )
        return tensors

    return drawn(), [drawn(0.3 if t % 3 else 3.0) for t in range(STEPS)]


def trajectory(name: str, backend: str) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Every parameter after every recorded step: its name, ours, the published one."""
    case = CASES[name]
    init, grads = inputs(case)
    params = {key: nn.Parameter(value) for key, value in init.items()}
    optimizer = construct(case, list(params.values()), BACKENDS[backend])
    for key, param in params.items():
        yield key, param.detach().clone(), param.detach().clone()
    for t, given in enumerate(grads, 1):
        for key, param in params.items():
            param.grad = given[key]
        optimizer.step()
        if (published := case["params"].get(str(t))) is None:
            continue
        for key, param in params.items():
            yield key, param.detach().clone(), torch.tensor(published[key], dtype=param.dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c["dtype"] == "float64"])
def test_float64_trajectory_is_the_published_one(name: str, backend: str) -> None:
    for _, ours, published in trajectory(name, backend):
        torch.testing.assert_close(ours, published, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c["dtype"] == "float32"])
def test_newton_schulz_equals_published_path_within_bf16_noise(name: str, backend: str) -> None:
    steps: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for key, ours, published in trajectory(name, backend):
        steps[key].append((ours, published))
    for key, points in steps.items():
        if points[0][0].ndim < 2:  # AdamW: no Newton-Schulz
            for ours, published in points:
                torch.testing.assert_close(ours, published, rtol=1e-6, atol=1e-6)
            continue
        path = 0.0
        for (x, y), (x_next, y_next) in pairwise(points):
            step = (y_next - y).norm()
            path += float(step)
            assert ((x_next - x) - (y_next - y)).norm() < 0.1 * step, key
        # the noise of the single steps averages out, an error in the method would not
        assert (points[-1][0] - points[-1][1]).norm() < 0.03 * path, key


def test_golden_file_has_every_rule_and_both_vector_treatments() -> None:
    kinds = {case["hyper"].get("mars_type", "mars-m") for case in CASES.values()}
    assert kinds == {*CLASS_OF, "mars-m"}
    assert {case["hyper"].get("optimize_1d") for case in CASES.values()} >= {True, False}

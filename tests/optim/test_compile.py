"""torch.compile of a step: no graph break, no recompilation, the same numbers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import nn

from mars_optim import MARS

CASES: list[dict[str, Any]] = [
    {"rule": "adamw"},
    {"rule": "adamw", "correction": "folded"},
    {"rule": "adamw", "clip": None, "amsgrad": True},
    {"rule": "lion"},
    {"rule": "lion", "correction": "folded"},
    {"rule": "adamw", "cautious": True, "clip_over": "global"},
    {"rule": "lion", "cautious": True},
    {"rule": "muon"},
    {"rule": "shampoo", "maximize": True},
]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def made(options: dict[str, Any]) -> tuple[list[nn.Parameter], MARS]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((8, 4), (4, 3), (5,))
    params = [nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]
    return params, MARS(params, gamma=0.1, **options)


def gradients(params: list[nn.Parameter], t: int) -> None:
    """In new tensors, as zero_grad() leaves it to backward to make."""
    generator = torch.Generator().manual_seed(t)
    for p in params:
        p.grad = 2 * torch.randn(p.shape, generator=generator)


def schedule(optimizer: MARS, t: int) -> None:
    """As torch's schedulers do it for an lr that is a tensor."""
    for group in optimizer.param_groups:
        group["lr"].fill_(0.01 / t)


@pytest.mark.slow_but_one
@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*script_method.*")
@pytest.mark.parametrize("backend", [{"foreach": True}, {}], ids=["foreach", "auto"])
@pytest.mark.parametrize("options", CASES, ids=lambda o: " ".join(map(str, o.values())))
def test_a_compiled_step_is_one_graph_and_the_same(
    options: dict[str, Any], backend: dict[str, Any]
) -> None:
    params, optimizer = made({"lr": torch.tensor(0.01), **options, **backend})
    gradients(params, 0)
    optimizer.step()  # state exists: what is compiled is the step of the long run
    twins, twin = copy.deepcopy((params, optimizer))
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    compiled = torch.compile(optimizer.step, backend=counter, fullgraph=True)
    for t in range(1, 6):
        for ps, step in ((params, compiled), (twins, twin.step)):
            gradients(ps, t)
            schedule(optimizer if ps is params else twin, t)
            step()
        for p, q in zip(params, twins, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
    assert counter.frame_count == 1


EDITS: list[dict[str, float]] = [
    {"weight_decay": 0.1},
    {"eps": 1e-6},
    {"gamma": 0.05},
    {"lr_ratio": 0.5},
    {"betas": (0.8, 0.9), "weight_decay": 0.2},  # type: ignore[dict-item]
]


@pytest.mark.slow_but_one
@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*script_method.*")
@pytest.mark.parametrize("edit", EDITS, ids=lambda e: " ".join(e))
def test_a_compiled_step_follows_edits_of_a_group(edit: dict[str, Any]) -> None:
    params, optimizer = made({"lr": torch.tensor(0.01)})
    gradients(params, 0)
    optimizer.step()
    twins, twin = copy.deepcopy((params, optimizer))
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    compiled = torch.compile(optimizer.step, backend=counter, fullgraph=True)
    for t in range(1, 7):
        for ps, one, step in ((params, optimizer, compiled), (twins, twin, twin.step)):
            gradients(ps, t)
            for group in one.param_groups:  # a schedule of the decay, say
                for key, value in edit.items():
                    group[key] = value if isinstance(value, tuple) else value * (1 + t)
            step()
        for p, q in zip(params, twins, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
    assert counter.frame_count <= 3  # as torch's own: once more where a constant becomes a number

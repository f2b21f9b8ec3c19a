"""torch.compile as the docs say it: with inductor, which writes and compiles C++ on a CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
import torch._inductor.config
from torch import Tensor, nn
from torch._inductor.cpp_builder import get_cpp_compiler

import mars_optim
from mars_optim import MARS, MARSM, MARSAdamW, MARSLion, MARSShampoo, release_gradients
from tests.support.rounding import assert_steps_agree


def _compiles() -> bool:
    try:
        return bool(get_cpp_compiler())
    except Exception:  # inductor's own word for it
        return False


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _compiles(), reason="inductor needs a C++ compiler on a CPU"),
    pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*script_method.*"),
    # inductor's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

CLASSES = [MARS, MARSAdamW, MARSLion, MARSShampoo, MARSM]
FORMS: list[dict[str, Any]] = [
    {"correction": "folded"},
    {"clip": None, "amsgrad": True, "optimize_1d": True},
    {"gamma": 0.0, "clip": None},
    {"last_grad_dtype": torch.bfloat16, "capturable": True},
    {"cautious": True, "clip_over": "global"},
    {"maximize": True, "rule": "lion"},
    {"rule": "lion", "correction": "folded", "optimize_1d": True},
    {"rule": "muon", "cautious": True},
    {"rule": "shampoo", "correction": "folded"},
]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    with torch._inductor.config.patch(compile_threads=1):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        yield
        torch._dynamo.reset()


def parameters(seed: int = 0, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    drawn = (torch.randn(s, generator=generator) for s in ((8, 4), (3, 5), (5,)))
    return [nn.Parameter(p.to(dtype)) for p in drawn]


def take(params: list[nn.Parameter], optimizer: MARS, step: Callable[[], Any], t: int) -> None:
    """One step with new gradients and another lr, written into the groups' tensors."""
    generator = torch.Generator().manual_seed(t)
    for p in params:
        p.grad = 2 * torch.randn(p.shape, generator=generator).to(p.dtype)
    for group in optimizer.param_groups:
        group["lr"].fill_(0.01 / (t + 1))
    step()


def check_compiled(params: list[nn.Parameter], optimizer: MARS) -> None:
    """Compiled from the very first step on: one graph, the same numbers."""
    twins, twin = copy.deepcopy((params, optimizer))
    compiled = torch.compile(optimizer.step, fullgraph=True)
    for t in range(4):
        take(params, optimizer, compiled, t)
        take(twins, twin, twin.step, t)
        assert_steps_agree(optimizer, params, twins, rtol=1e-5, atol=1e-6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_every_public_class_is_here() -> None:
    names = {name for name in mars_optim.__all__ if name.startswith("MARS")}
    assert names == {cls.__name__ for cls in CLASSES}


@pytest.mark.parametrize("cls", CLASSES)
def test_step_compiles_once_by_default_backend_with_equal_result(cls: type[MARS]) -> None:
    params = parameters()
    check_compiled(params, cls(params, lr=torch.tensor(0.01), gamma=0.1))


@pytest.mark.parametrize("cls", [MARSShampoo, MARSM])
def test_a_compiled_orthogonal_step_is_exact_in_float64(cls: type[MARS]) -> None:
    params = parameters(dtype=torch.float64)
    check_compiled(params, cls(params, lr=torch.tensor(0.01), gamma=0.1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_form_compiles_with_the_default_backend(dtype: torch.dtype) -> None:
    params: list[nn.Parameter] = []
    groups: list[dict[str, Any]] = []
    for seed, form in enumerate(FORMS):
        own = parameters(seed, dtype)
        params += own
        groups.append({"params": own, "lr": torch.tensor(0.01), "gamma": 0.1, **form})
    check_compiled(params, MARS(groups))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"foreach": False}, "foreach=False cannot be compiled.*foreach=None"),
        ({"fused": True}, "fused=True is not possible here: torch.compile makes.*fused=None"),
    ],
)
def test_path_that_cannot_be_compiled_is_refused_with_advice(
    options: dict[str, Any], words: str
) -> None:
    params = parameters()
    optimizer = MARSAdamW(params, lr=torch.tensor(0.01), **options)
    with pytest.raises(Exception, match=words):
        take(params, optimizer, torch.compile(optimizer.step, fullgraph=True), 0)


def trained(*, compiled: bool, released: bool) -> list[Tensor]:
    """Weights after five whole training steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    x, y = torch.randn(16, 6), torch.randn(16, 3)
    optimizer = MARSAdamW(model.parameters(), lr=torch.tensor(0.01))
    if released:
        release_gradients(optimizer)

    def step() -> None:
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()

    go = torch.compile(step) if compiled else step
    for t in range(5):
        for group in optimizer.param_groups:
            group["lr"].fill_(0.01 / (t + 1))
        go()
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("released", [False, True], ids=["kept", "released"])
def test_compiled_training_step_with_compiled_autograd_is_equal(released: bool) -> None:
    wanted = trained(compiled=False, released=False)
    with torch._dynamo.config.patch(compiled_autograd=released):
        found = trained(compiled=True, released=released)
    for p, q in zip(found, wanted, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)

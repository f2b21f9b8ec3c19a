"""A scheduled gamma in a compiled step, and with a gradient scaler: the eager choice, one graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
import torch._inductor.config
from torch import nn
from torch._inductor.cpp_builder import get_cpp_compiler

from mars_optim import MARS
from tests.support.cases import make_params
from tests.support.rounding import assert_steps_agree

FORMS: list[dict[str, Any]] = [
    {"gamma": "auto"},
    {"gamma": "auto", "rule": "lion", "optimize_1d": True},
    {"gamma": "auto", "rule": "muon", "capturable": True},
    {"gamma": "auto", "rule": "shampoo"},
    {"gamma_schedule": "least_error", "correction": "folded"},
    {"gamma_schedule": "least_error", "clip": None},
    {"gamma_schedule": "lr"},
    {"gamma_schedule": "sqrt_lr", "correction": "folded", "capturable": True},
]
STEPS = 45

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*script_method.*"),
    # inductor's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


def _compiles() -> bool:
    try:
        return bool(get_cpp_compiler())
    except Exception:  # inductor's own word for it
        return False


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    with torch._inductor.config.patch(compile_threads=1):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        yield
        torch._dynamo.reset()


def made(
    forms: list[dict[str, Any]], dtype: torch.dtype = torch.float32
) -> tuple[list[nn.Parameter], MARS]:
    """A group of each form; a tensor is sampled in part."""
    params: list[nn.Parameter] = []
    groups: list[dict[str, Any]] = []
    for seed, form in enumerate(forms):
        own = make_params([(8, 4), (5,), (70, 90)], dtype=dtype, seed=seed)
        params += own
        groups.append({"params": own, "lr": torch.tensor(0.01), **form})
    return params, MARS(groups)


def take(params: list[nn.Parameter], optimizer: MARS, step: Callable[[], Any], t: int) -> None:
    """One step with new gradients, and another lr in the groups' tensors."""
    generator = torch.Generator().manual_seed(t)
    for p in params:
        p.grad = 0.3 + torch.randn(p.shape, generator=generator).to(p.dtype)
    for group in optimizer.param_groups:
        group["lr"].fill_(0.01 / (t + 1))
    step()


def check_compiled(
    forms: list[dict[str, Any]], backend: str, dtype: torch.dtype = torch.float32
) -> None:
    """Compiled from the very first step on: one graph, the same gammas."""
    params, optimizer = made(forms, dtype)
    twins, twin = copy.deepcopy((params, optimizer))
    compiled = torch.compile(optimizer.step, fullgraph=True, backend=backend)
    for t in range(STEPS):
        take(params, optimizer, compiled, t)
        take(twins, twin, twin.step, t)
        for group, other in zip(optimizer.param_groups, twin.param_groups, strict=True):
            found, wanted = (float(g.get("gamma_now", 0.0)) for g in (group, other))
            assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12), (t, group["rule"])
    if backend == "eager":
        torch.testing.assert_close(params, twins, rtol=1e-4, atol=1e-5)
    else:
        assert_steps_agree(optimizer, params, twins, rtol=1e-4, atol=1e-5)
    began = {group["gamma"] for group in optimizer.param_groups}
    assert all(float(g.get("gamma_now", 0.0)) not in began - {0.0} for g in twin.param_groups)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow_but_one
@pytest.mark.parametrize("form", FORMS, ids=lambda form: " ".join(map(str, form.values())))
def test_a_compiled_step_moves_gamma_in_one_graph(form: dict[str, Any]) -> None:
    check_compiled([form], "eager")


@pytest.mark.slow
@pytest.mark.skipif(not _compiles(), reason="inductor needs a C++ compiler on a CPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_default_compiler_moves_every_gamma_too(dtype: torch.dtype) -> None:
    check_compiled(FORMS, "inductor", dtype)


def test_a_step_goes_on_compiled_and_back() -> None:
    params, optimizer = made([{"gamma": "auto"}])
    twins, twin = copy.deepcopy((params, optimizer))
    compiled = torch.compile(optimizer.step, fullgraph=True, backend="eager")
    for t in range(STEPS):
        take(params, optimizer, compiled if 13 < t < 34 else optimizer.step, t)
        take(twins, twin, twin.step, t)
    gammas = [float(o.param_groups[0]["gamma_now"]) for o in (optimizer, twin)]
    assert gammas[0] == pytest.approx(gammas[1], rel=1e-9)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("form", FORMS, ids=lambda form: " ".join(map(str, form.values())))
def test_a_step_in_tensors_alone_moves_gamma_alike(form: dict[str, Any]) -> None:
    params, optimizer = made([{**form, "capturable": False}])
    twins, twin = made([{**form, "capturable": True}])
    for t in range(STEPS):
        take(params, optimizer, optimizer.step, t)
        take(twins, twin, twin.step, t)
    for group, other in zip(optimizer.param_groups, twin.param_groups, strict=True):
        found, wanted = (float(g.get("gamma_now", 0.0)) for g in (other, group))
        assert found == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("unscale", [False, True], ids=["by the scaler", "by the step"])
def test_steps_that_a_scaler_skips_leave_no_trace_in_gamma(unscale: bool) -> None:
    """A twin takes the same steps but the skipped ones."""
    found = []
    for overflows in (True, False):
        params, optimizer = made([{"gamma": "auto", **({"fused": None} if unscale else {})}])
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1000)
        for t in range(STEPS):
            overflow = t % 9 == 8
            if overflow and not overflows:
                continue
            generator = torch.Generator().manual_seed(t)
            optimizer.zero_grad()
            noise = [0.3 + torch.randn(p.shape, generator=generator) for p in params]
            loss = sum((p * g).sum() for p, g in zip(params, noise, strict=True))
            scaler.scale(loss * (torch.inf if overflow else 1.0)).backward()
            if unscale:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        found.append(float(optimizer.param_groups[0]["gamma_now"]))
    assert found[0] == pytest.approx(found[1], rel=1e-6) != 0.025


def test_a_step_skipped_on_the_device_leaves_no_trace() -> None:
    """A flag on another device than the CPU: of numbers a meta tensor has none, so by hand."""
    from mars_optim.optim.backends import Amp
    from mars_optim.optim.gamma.choice import look_at

    class OnDevice(Amp):
        on_device = torch.tensor(1.0)

    params, optimizer = made([{"gamma": "auto"}])
    for t in range(3):
        take(params, optimizer, optimizer.step, t)
    group, plan = optimizer.param_groups[0], optimizer._runtime["plans"][0]
    before = group["gamma_probes"].clone()
    seen = look_at(group, plan, 0, [0, 1], OnDevice())
    assert torch.equal(group["gamma_probes"], before)
    assert seen[:-1].isnan().all()
    assert seen[-1] == 1.0


@pytest.mark.parametrize("after", [(4, 4), (6, 10)])
def test_a_compiled_step_says_that_a_shape_has_changed(after: tuple[int, ...]) -> None:
    param = nn.Parameter(torch.randn(10, 6))
    optimizer = MARS([param], gamma="auto")
    param.grad = torch.randn_like(param)
    optimizer.step()
    compiled = torch.compile(optimizer.step, backend="eager")
    compiled()
    optimizer.zero_grad()
    optimizer.state.pop(param)
    param.data = torch.randn(after)
    param.grad = torch.ones_like(param)
    with pytest.raises(RuntimeError, match="has changed its shape: take one step that is not"):
        compiled()

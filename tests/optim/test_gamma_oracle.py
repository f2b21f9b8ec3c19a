"""Every way to choose gamma is that of the oracle, which is slow, in float64 and reads plainly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim import MARS, release_gradients
from mars_optim.optim.backends.cpu import look
from tests.support.cases import needs_compiler
from tests.support.gamma_oracle import Oracle

SHAPES = [(5, 3), (41, 60), (64, 64), (2, 3, 4), (7,)]
WAYS: dict[str, dict[str, Any]] = {
    "by torch": {"foreach": True},
    "in tensors alone": {"capturable": True},
    "by the loop": {"foreach": False, "fused": False},
}


def gradients(step: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    found = []
    for i, shape in enumerate(SHAPES):
        signal = torch.full(shape, i + 0.04 * step, dtype=torch.float64).sin()
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        found.append((10.0 ** (i - 2) * (signal + noise)).to(dtype))
    return found


def some(step: int, grads: list[Tensor]) -> list[Tensor | None]:
    """One joins late, one pauses."""
    absent = {i for i, late in ((2, step < 13), (3, step % 7 == 3)) if late}
    return [None if i in absent else g for i, g in enumerate(grads)]


def check(
    schedule: str, dtype: torch.dtype, thin: Callable[..., Any], rtol: float, **options: Any
) -> None:
    params = [nn.Parameter(g) for g in gradients(99, dtype)]
    betas = (0.9, 0.97)
    optimizer = MARS(
        params, lr=1e-3, betas=betas, gamma_schedule=schedule, correction="folded",
        optimize_1d=options.get("rule", "adamw") in ("adamw", "lion"), **options,
    )  # fmt: skip
    group = optimizer.param_groups[0]
    here = [i for i, p in enumerate(params) if any(p is q for q in group["params"])]
    oracle, moved = Oracle(schedule, betas), set()
    for step in range(75):
        grads = thin(step, gradients(step, dtype))
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        optimizer.step()
        wanted = oracle.step([grads[i] for i in here])
        assert float(group["gamma_now"]) == pytest.approx(wanted, rel=rtol, abs=rtol), step
        moved.add(wanted)
    assert len(moved) > 4


@pytest.mark.slow_but_one(among=5)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("thin", [lambda _, grads: grads, some], ids=["all", "some"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("schedule", ["auto", "least_error"])
def test_every_path_chooses_the_gamma_of_the_oracle(
    schedule: str, way: dict[str, Any], thin: Any, dtype: torch.dtype, monkeypatch: Any
) -> None:
    monkeypatch.setattr(look, "library", lambda: look_nowhere)
    check(schedule, dtype, thin, 1e-9, **way)


class look_nowhere:
    c = None


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("thin", [lambda _, grads: grads, some], ids=["all", "some"])
def test_the_kernel_chooses_the_gamma_of_the_oracle(
    thin: Any, dtype: torch.dtype, monkeypatch: Any
) -> None:
    calls = []
    real = look.look

    def counted(*args: Any) -> int:
        calls.append(step := real(*args))
        return step

    monkeypatch.setattr(look, "look", counted)
    check("auto", dtype, thin, 1e-9)
    looked = [step for step in calls if step]
    assert looked == [i + 1 for i, step in enumerate(calls) if step]
    assert len(looked) == (75 if thin is not some else len(looked)) > 30


@pytest.mark.parametrize("rule", ["lion", "muon", "shampoo"])
def test_every_rule_has_the_gamma_of_the_oracle(rule: str) -> None:
    check("auto", torch.float64, lambda _, grads: grads, 1e-9, rule=rule, ns_steps=1)


def test_gradients_scaled_for_half_precision_choose_the_same() -> None:
    params = [nn.Parameter(g) for g in gradients(99)[:3]]
    optimizer, oracle = (
        MARS(params, gamma="auto", betas=(0.9, 0.97)),
        Oracle("auto", (0.9, 0.97), 0.1),
    )
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(1000.0), torch.tensor(0.0)
    for step in range(45):
        for p, g in zip(params, gradients(step), strict=False):
            p.grad = g * 1000.0
        optimizer.step()
        wanted = oracle.step(list(gradients(step)[:3]))
        assert float(optimizer.param_groups[0]["gamma_now"]) == pytest.approx(wanted, rel=1e-9)


def test_released_gradients_choose_the_gamma_of_the_oracle() -> None:
    params = [nn.Parameter(g) for g in gradients(99)[:3]]
    optimizer, oracle = (
        MARS(params, gamma="auto", betas=(0.9, 0.97)),
        Oracle("auto", (0.9, 0.97), 0.1),
    )
    release_gradients(optimizer)
    for step in range(45):
        grads = gradients(step)[:3]
        sum((p * g).sum() for p, g in zip(params, grads, strict=True)).backward()
        assert all(p.grad is None for p in params)
        optimizer.step()
        wanted = oracle.step(list(grads))
        assert float(optimizer.param_groups[0]["gamma_now"]) == pytest.approx(wanted, rel=1e-9)


@needs_compiler
def test_the_kernel_and_torch_leave_what_is_not_finite_alike(monkeypatch: Any) -> None:
    ends = []
    for native in (True, False):
        if not native:
            monkeypatch.setattr(look, "library", lambda: look_nowhere)
        params = [nn.Parameter(g) for g in gradients(99, torch.float32)]
        optimizer = MARS(params, gamma="auto", optimize_1d=True)
        for step in range(30):
            for p, g in zip(params, gradients(step, torch.float32), strict=True):
                p.grad = g
            if step in (3, 17):
                params[0].grad[1, 2], params[1].grad[0, 0] = torch.nan, torch.inf
            optimizer.step()
        group = optimizer.param_groups[0]
        ends.append([group["gamma_probes"], group["gamma_now"], group["gamma_silent"]])
    for native, plain in zip(*ends, strict=True):
        torch.testing.assert_close(native, plain, rtol=1e-12, atol=0.0)
    assert ends[0][0].isfinite().all()
    assert ends[0][2].tolist() == [0.0, 2.0]


@needs_compiler
def test_a_lazy_negative_gradient_has_its_own_sign() -> None:
    ends = []
    for lazy in (False, True):
        param = nn.Parameter(gradients(99, torch.float32)[2])
        optimizer = MARS([param], gamma="auto")
        for step in range(30):
            g = gradients(step, torch.float32)[2]
            turned = lazy and step % 2 == 0
            param.grad = torch._neg_view(-g) if turned else g
            assert param.grad.is_neg() == turned
            optimizer.step()
        ends.append(optimizer.param_groups[0]["gamma_now"])
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-9, atol=0.0)

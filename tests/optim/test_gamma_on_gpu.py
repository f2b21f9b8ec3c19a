"""A scheduled gamma on a GPU: no step waits, and a CUDA graph of one moves gamma."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mars_optim import MARS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]

FORMS: list[dict[str, Any]] = [
    {"gamma": "auto"},
    {"gamma": "auto", "foreach": True},
    {"gamma": "auto", "rule": "lion"},
    {"gamma": "auto", "rule": "muon"},
    {"gamma_schedule": "least_error"},
    {"gamma_schedule": "lr"},
]


def made(form: dict[str, Any], device: str = "cuda", **options: Any) -> tuple[Any, MARS]:
    generator = torch.Generator().manual_seed(0)
    params = [
        torch.nn.Parameter(torch.randn(s, generator=generator).to(device))
        for s in ((300, 70), (64, 9))
    ]
    return params, MARS(params, **form, **options)


def gradients(params: Any, step: int, *, anew: bool = True) -> None:
    generator = torch.Generator().manual_seed(step)
    for p in params:
        grad = (0.3 + torch.randn(p.shape, generator=generator)).to(p.device)
        if anew or p.grad is None:
            p.grad = grad
        else:
            p.grad.copy_(grad)


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_no_step_with_a_scheduled_gamma_waits(form: dict[str, Any], capturable: bool) -> None:
    params, optimizer = made(form, capturable=capturable, lr=torch.tensor(1e-3, device="cuda"))
    for step in range(35):
        gradients(params, step)
        torch.cuda.set_sync_debug_mode("error" if step else "default")
        try:
            optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert all(param.isfinite().all() for param in params)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_gamma_on_a_gpu_is_that_of_the_cpu(form: dict[str, Any]) -> None:
    found = []
    for device in ("cpu", "cuda"):
        params, optimizer = made(form, device, lr=1e-3)
        for step in range(45):
            gradients(params, step)
            optimizer.step()
        found.append(float(optimizer.param_groups[0]["gamma_now"]))
    assert found[1] == pytest.approx(found[0], rel=1e-5)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_replayed_graph_moves_gamma(form: dict[str, Any]) -> None:
    found = []
    for captured in (False, True):
        lr = torch.tensor(1e-3, device="cuda")
        params, optimizer = made(form, capturable=True, lr=lr)
        for step in range(3):
            gradients(params, step, anew=False)
            optimizer.step()
        graph = torch.cuda.CUDAGraph()
        if captured:
            with torch.cuda.graph(graph):
                optimizer.step()
        for step in range(3, 45):
            gradients(params, step, anew=False)
            lr.fill_(1e-3 / step)
            if captured:
                graph.replay()
            else:
                optimizer.step()
        found.append(float(optimizer.param_groups[0]["gamma_now"]))
    assert found[1] == pytest.approx(found[0], rel=1e-6) != 0.025

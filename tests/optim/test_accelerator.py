"""Properties of accelerators that can be tested without one, by tensors that hold no data."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from mars_optim import MARS
from tests.support.cases import OPTIMIZERS, SHAPES


@pytest.mark.parametrize("backend", [{}, {"foreach": True}], ids=str)
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_step_never_waits_for_a_value_from_the_accelerator(
    make: Callable[..., MARS], backend: dict[str, bool]
) -> None:
    # no_grad: a build without CUDA aborts where autograd looks for a device
    with FakeTensorMode(), torch.no_grad():
        params = [torch.nn.Parameter(torch.empty(s, device="cuda")) for s in SHAPES.values()]
        with pytest.raises(DataDependentOutputException):
            bool(params[0].norm() > 1.0)  # so that a step that did so would be seen
        optimizer = make(params, **backend)
        for _ in range(2):
            for param in params:
                param.grad = torch.empty_like(param)
            optimizer.step()
        for param in params:
            assert optimizer.state[param]["exp_avg"].device.type == "cuda"
            assert optimizer.state[param]["step"].device.type == "cpu"


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_capturable_step_with_scaler_keeps_state_off_the_host(
    make: Callable[..., MARS],
) -> None:
    with FakeTensorMode(), torch.no_grad():
        params = [torch.nn.Parameter(torch.empty(s, device="cuda")) for s in SHAPES.values()]
        optimizer = make(params, capturable=True, lr=torch.empty((), device="cuda"))
        for _ in range(2):
            for param in params:
                param.grad = torch.empty_like(param)
            optimizer.grad_scale = torch.empty((), device="cuda")
            optimizer.found_inf = torch.empty(1, device="cuda")
            optimizer.step()
        for param in params:
            for value in optimizer.state[param].values():
                assert value.device.type == "cuda"

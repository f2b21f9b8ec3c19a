"""An optimizer under ``variance_reduce`` goes on: from a checkpoint, by deepcopy and by pickle."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from mars_optim import variance_reduce
from mars_optim.optim.tools.wrap import VarianceReduction
from tests.support.wrapped import OPTIMIZERS, adamw, params_, step


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_wrapper_resumes_bit_identically_from_a_checkpoint(name: str) -> None:
    params = params_()
    optimizer = OPTIMIZERS[name](params)
    variance_reduce(optimizer, gamma=0.3)
    for t in range(3):
        step(optimizer, params, t)
    params2 = copy.deepcopy(params)
    optimizer2 = OPTIMIZERS[name](params2)
    variance_reduce(optimizer2, gamma=0.0)
    optimizer2.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for t in range(3, 6):
        step(optimizer, params, t)
        step(optimizer2, params2, t)
    for a, b in zip(params, params2, strict=True):
        assert torch.equal(a, b)


def by_deepcopy(optimizer: Optimizer, params: list[nn.Parameter]) -> Any:
    return copy.deepcopy((optimizer, params))


def by_pickle(optimizer: Optimizer, params: list[nn.Parameter]) -> Any:
    return pickle.loads(pickle.dumps((optimizer, params)))


@pytest.mark.parametrize("way", [by_deepcopy, by_pickle])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_copy_of_the_optimizer_goes_on_with_the_correction(name: str, way: Any) -> None:
    params = params_()
    optimizer = OPTIMIZERS[name](params)
    variance_reduce(optimizer, gamma=0.3)
    for t in range(2):
        step(optimizer, params, t)
    twin, others = way(optimizer, params)
    for t in range(2, 4):
        step(optimizer, params, t)
        step(twin, others, t)
    for a, b in zip(params, others, strict=True):
        assert torch.equal(a, b)
    handle = VarianceReduction.of(twin)
    assert handle is not None
    assert handle.optimizer is twin
    with pytest.raises(ValueError, match=r"VarianceReduction\.of\(optimizer\)\.remove\(\)"):
        variance_reduce(twin)
    handle.remove()
    assert VarianceReduction.of(twin) is None
    assert VarianceReduction.of(optimizer) is not None  # its own is another
    assert type(twin.defaults) is dict
    assert "mars_gamma" not in twin.param_groups[0]
    assert not twin._optimizer_step_pre_hooks
    variance_reduce(twin)


def test_a_copy_shares_nothing_with_its_original() -> None:
    params = params_()
    optimizer = adamw(params)
    variance_reduce(optimizer, gamma=0.3)
    step(optimizer, params, 0)
    twin, others = copy.deepcopy((optimizer, params))
    before = [p.detach().clone() for p in params]
    step(twin, others, 1)
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))


def test_a_checkpoint_from_before_it_was_wrapped_goes_on() -> None:
    params, twins = params_(), params_()
    plain, wrapped = adamw(params), adamw(twins)
    step(plain, params, 0)
    variance_reduce(wrapped, gamma=0.3, clip=None)
    step(wrapped, twins, 0)
    with torch.no_grad():
        for p, q in zip(params, twins, strict=True):
            q.copy_(p)
    wrapped.load_state_dict(copy.deepcopy(plain.state_dict()))
    variance_reduce(plain, gamma=0.3, clip=None)
    for t in range(1, 3):
        step(plain, params, t)
        step(wrapped, twins, t)
    for a, b in zip(params, twins, strict=True):
        assert torch.equal(a, b)
    assert wrapped.param_groups[0]["mars_gamma"] == 0.3


def test_wrapping_after_loading_requires_checkpoint_settings() -> None:
    params, twins = params_(), params_()
    optimizer, again = adamw(params), adamw(twins)
    variance_reduce(optimizer, gamma=0.3)
    step(optimizer, params, 0)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    with pytest.raises(
        ValueError, match=r"mars_gamma=0\.3.*gamma=0\.025.*wrap the optimizer first"
    ):
        variance_reduce(again)
    variance_reduce(again, gamma=0.3)

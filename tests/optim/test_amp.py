"""A GradScaler's tensors in the step: unscaled inside, skipped inside, p.grad left alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from mars_optim import MARS, MARSAdamW, MARSLion, MARSShampoo
from mars_optim.optim.backends import Bucket, wrappers
from tests.support.cases import OPTIMIZERS, make_grads, make_params, needs_compiler, run, same

SCALE = 1024.0
WAYS: dict[str, dict[str, Any]] = {
    "auto": {},
    "foreach": {"foreach": True},
    "reference": {"foreach": False, "fused": False},
}


def scaled_step(optimizer: MARS, params: list[nn.Parameter], t: int, *, inf: float = 0.0) -> None:
    """One step as torch.amp.GradScaler makes it for an optimizer that scales by itself."""
    for param, grad in zip(params, make_grads(params, t), strict=True):
        param.grad = grad * SCALE
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(SCALE), torch.tensor(inf)
    optimizer.step()
    del optimizer.grad_scale, optimizer.found_inf


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_scaled_gradients_give_the_same_step(
    make: Callable[..., MARS], way: dict[str, Any]
) -> None:
    ours, theirs = make_params(), make_params()
    scaled = make(ours, **way)
    for t in range(4):
        scaled_step(scaled, ours, t)
    assert same(ours, run(make(theirs, **way), theirs))  # a power of two: to the last bit


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_step_that_overflowed_leaves_everything_as_it_was(
    make: Callable[..., MARS], way: dict[str, Any]
) -> None:
    params = make_params()
    optimizer = make(params, **way)
    run(optimizer, params)
    before = copy.deepcopy((params, optimizer.state_dict()))
    params[0].grad = torch.full_like(params[0], torch.inf)
    scaled_step(optimizer, params, 7, inf=1.0)
    assert same(params, before[0])
    now = optimizer.state_dict()["state"]
    torch.testing.assert_close(now, before[1]["state"], rtol=0.0, atol=0.0)


def test_gradients_are_left_as_the_scaler_made_them() -> None:
    params = make_params(dtype=torch.float32)
    optimizer = MARSAdamW(params)
    scaled_step(optimizer, params, 0)
    for param, grad in zip(params, make_grads(params, 0), strict=True):
        assert torch.equal(param.grad, grad * SCALE)


@pytest.mark.parametrize("inf", [0.0, 1.0])
def test_on_a_device_the_step_is_undone_without_reading_the_flag(inf: float) -> None:
    x, history = torch.ones(3), {"exp_avg": torch.zeros(2), "step": torch.tensor(4.0)}

    def update(bucket: Bucket) -> None:
        x.fill_(torch.nan)
        history["exp_avg"].add_(1.0)
        history["step"].add_(1.0)

    settings: Any = None  # no step reads them here
    wrappers.unless(torch.tensor([inf]), update, Bucket([x], [x], [history], settings))
    assert x.isnan().all() == (inf == 0.0)
    assert history["step"] == (5.0 if inf == 0.0 else 4.0)
    assert history["exp_avg"].eq(1.0 if inf == 0.0 else 0.0).all()


def test_fused_declares_its_own_amp_scaling_as_torch_does() -> None:
    assert MARSAdamW(make_params(), fused=True)._step_supports_amp_scaling
    assert not MARSAdamW(make_params())._step_supports_amp_scaling


@pytest.mark.parametrize(
    "cls",
    [
        partial(MARSAdamW, fused=True),
        pytest.param(partial(MARSLion, fused=True), marks=needs_compiler),
    ],
)
def test_overflow_with_a_real_scaler_costs_one_step_only(
    cls: Callable[..., MARS],
) -> None:
    ours, theirs = make_params(dtype=torch.float32), make_params(dtype=torch.float32)
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    optimizer, plain = cls(ours), cls(theirs)
    for t in range(5):
        for param, grad in zip(ours, make_grads(ours, t), strict=True):
            param.grad = scaler.scale(grad) if t != 2 else torch.full_like(param, torch.inf)
        scaler.step(optimizer)
        scaler.update()
        if t != 2:
            run(plain, theirs, [t])
    assert scaler.get_scale() == SCALE / 2
    assert same(ours, theirs)


def test_exact_form_keeps_previous_point_over_a_skipped_step() -> None:
    params = make_params([(3, 2)], dtype=torch.float32)
    optimizer = MARSShampoo(params, correction="exact", lr=0.1)
    for t in range(2):
        with optimizer.previous_point():
            params[0].square().sum().backward()
        run(optimizer, params, [t])
    last_param = optimizer.state[params[0]]["last_param"].clone()
    with optimizer.previous_point():
        params[0].square().sum().backward()
    scaled_step(optimizer, params, 3, inf=1.0)
    assert torch.equal(optimizer.state[params[0]]["last_param"], last_param)


def test_overflow_at_previous_point_alone_means_no_correction() -> None:
    ends = []
    for fused in (None, True):  # the scaler divides the gradients, or the step does
        params = make_params([(3, 2)], dtype=torch.float32)
        scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
        optimizer = MARSAdamW(params, correction="exact", gamma=0.3, lr=0.1, fused=fused)
        for t in range(3):
            with optimizer.previous_point(scaler=scaler):
                params[0].grad = torch.full_like(params[0], torch.inf if t == 1 else SCALE)
            params[0].grad = scaler.scale(make_grads(params, t)[0])
            scaler.step(optimizer)
            scaler.update()
        ends.append(params[0])
    assert ends[0].isfinite().all()
    assert torch.equal(*ends)

"""Any torch optimizer becomes a MARS by hooks, and is itself again after remove()."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim import MARSAdamW, variance_reduce
from mars_optim.optim.tools.wrap_options import LAST_GRAD
from tests.support.wrapped import OPTIMIZERS, Make, adamw, gradients, params_, step


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_with_adamw_it_equals_marsadamw(fused: bool, clip: float | None) -> None:
    ours, theirs = params_(), params_()
    mars = MARSAdamW(
        ours, lr=0.01, weight_decay=0.1, gamma=0.3, clip=clip, fused=fused, foreach=not fused
    )
    wrapped = adamw(theirs, fused=fused, foreach=not fused)
    variance_reduce(wrapped, gamma=0.3, clip=clip)
    for t in range(6):
        step(mars, ours, t)
        step(wrapped, theirs, t)
        for a, b in zip(ours, theirs, strict=True):
            if fused:  # our kernel and torch's round differently
                torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
            else:
                assert torch.equal(a, b)


def test_with_sgd_the_momentum_buffer_is_that_of_c() -> None:
    params = params_()
    sgd = torch.optim.SGD(params, lr=0.1, momentum=0.9)
    variance_reduce(sgd, gamma=0.1, clip=None, optimize_1d=True)
    k, buffers, last = 0.1 * 0.9 / (1 - 0.9), None, None
    for t in range(4):
        step(sgd, params, t)
        g = gradients(params, t)
        last = last or [torch.zeros_like(x) for x in g]
        c = [a + k * (a - b) for a, b in zip(g, last, strict=True)]
        buffers = c if buffers is None else [0.9 * m + x for m, x in zip(buffers, c, strict=True)]
        last = g
        for p, m in zip(params, buffers, strict=True):
            torch.testing.assert_close(sgd.state[p]["momentum_buffer"], m)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_are_left_as_the_user_left_them(name: str) -> None:
    params = params_()
    optimizer = OPTIMIZERS[name](params)
    variance_reduce(optimizer, gamma=0.3)
    for t in range(3):
        grads = gradients(params, t)
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        optimizer.step()
        for p, g, fresh in zip(params, grads, gradients(params, t), strict=True):
            assert p.grad is g
            assert torch.equal(g, fresh)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_wrapper_changes_the_step_except_at_gamma_0_without_clip(name: str) -> None:
    runs = {}
    for kind in ("plain", "gamma 0", "mars"):
        params = params_()
        optimizer = OPTIMIZERS[name](params)
        if kind != "plain":
            gamma = 0.0 if kind == "gamma 0" else 0.3
            variance_reduce(optimizer, gamma=gamma, clip=None)
        for t in range(4):
            step(optimizer, params, t)
        runs[kind] = params
    for a, b, c in zip(runs["plain"], runs["gamma 0"], runs["mars"], strict=True):
        assert torch.equal(a, b)
        assert a.ndim < 2 or not torch.allclose(a, c)


def test_gamma_and_clip_in_the_groups_are_read_at_each_step() -> None:
    params, plain = params_(), params_()
    optimizer, reference = adamw(params), adamw(plain)
    variance_reduce(optimizer, gamma=0.3)
    for group in optimizer.param_groups:
        group["mars_gamma"], group["mars_clip"] = 0.0, None
    for t in range(3):
        step(optimizer, params, t)
        step(reference, plain, t)
    for a, b in zip(params, plain, strict=True):
        assert torch.equal(a, b)


def test_remove_leaves_a_plain_optimizer() -> None:
    params = params_()
    optimizer = adamw(params)
    keys = set(optimizer.param_groups[0])
    handle = variance_reduce(optimizer, gamma=0.3)
    step(optimizer, params, 0)
    handle.remove()
    assert set(optimizer.param_groups[0]) == keys
    assert not any(LAST_GRAD in state for state in optimizer.state.values())
    plain = copy.deepcopy(params)
    twin = adamw(plain)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(optimizer, params, 1)
    step(twin, plain, 1)
    for a, b in zip(params, plain, strict=True):
        assert torch.equal(a, b)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2, 2))]})
    assert "mars_gamma" not in optimizer.param_groups[-1]
    variance_reduce(optimizer)  # and may be wrapped again


def test_closure_is_called_once_and_its_gradients_corrected() -> None:
    params, by_hand = params_(), params_()
    optimizer, reference = adamw(params), adamw(by_hand)
    for o in (optimizer, reference):
        variance_reduce(o, gamma=0.3)
    for t in range(3):
        calls = []

        def closure(t: int = t, calls: list[int] = calls) -> float:
            calls.append(t)
            for p, g in zip(params, gradients(params, t), strict=True):
                p.grad = g
            return 2.5

        assert optimizer.step(closure) == 2.5
        assert calls == [t]
        step(reference, by_hand, t)
    for a, b in zip(params, by_hand, strict=True):
        assert torch.equal(a, b)


def test_an_optimizer_that_calls_its_closure_often_is_refused() -> None:
    params = params_()
    lbfgs = torch.optim.LBFGS(params, lr=0.1)
    variance_reduce(lbfgs, beta1=0.9)

    def closure() -> Tensor:
        lbfgs.zero_grad()
        loss = sum((p**2).sum() for p in params)
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="LBFGS calls its closure more than once"):
        lbfgs.step(closure)


def test_a_late_first_gradient_starts_from_a_zero_history() -> None:
    params = params_()
    optimizer = adamw(params)
    variance_reduce(optimizer, gamma=0.3, clip=None)
    late = params[1]
    for t in range(3):
        for p, g in zip(params, gradients(params, t), strict=True):
            p.grad = None if p is late and t < 2 else g
        optimizer.step()
    k = 0.3 * 0.95 / 0.05
    expected = 0.05 * (1 + k) * gradients(params, 2)[1]
    torch.testing.assert_close(optimizer.state[late]["exp_avg"], expected)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda p: torch.optim.Adagrad(p), {}, "Adagrad has no 'betas' or 'momentum'.*beta1="),
        (lambda p: torch.optim.SGD(p, lr=0.1), {"gamma": -1}, "gamma=-1 must be"),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), {"clip": 0}, "clip=0 must be"),
        (lambda p: torch.optim.Adagrad(p), {"beta1": 1.0}, r"beta1"),
    ],
)
def test_a_mistake_is_named_and_leaves_the_optimizer_alone(
    make: Make, options: dict[str, Any], message: str
) -> None:
    optimizer = make(params_())
    keys = set(optimizer.param_groups[0])
    with pytest.raises(ValueError, match=message):
        variance_reduce(optimizer, **options)
    assert set(optimizer.param_groups[0]) == keys


def test_a_sparse_gradient_is_refused_with_the_way_out() -> None:
    table = nn.Embedding(4, 3, sparse=True)
    sgd = torch.optim.SGD([("tokens.weight", table.weight)], lr=0.1, momentum=0.9)
    variance_reduce(sgd)
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(ValueError, match=r"variance_reduce .*sparse.*tokens\.weight.*sparse=False"):
        sgd.step()


def test_wrapping_twice_is_refused() -> None:
    optimizer = adamw(params_())
    variance_reduce(optimizer)
    with pytest.raises(ValueError, match="already"):
        variance_reduce(optimizer)


def test_failed_step_leaves_gradient_and_the_next_step_is_sound() -> None:
    params, twin = params_(), params_()
    optimizer, reference = adamw(params), adamw(twin)
    for o in (optimizer, reference):
        variance_reduce(o, gamma=0.3)
        step(o, params if o is optimizer else twin, 0)

    def closure() -> float:
        raise KeyError

    with pytest.raises(KeyError):
        optimizer.step(closure)
    step(optimizer, params, 1)
    step(reference, twin, 1)
    for a, b in zip(params, twin, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("edit", "message"),
    [({"mars_gamma": -1}, "gamma=-1"), ({"mars_clip": "x"}, "clip='x' must be a number")],
)
def test_edit_out_of_range_is_refused_before_gradients_change(
    edit: dict[str, Any], message: str
) -> None:
    params = params_()
    optimizer = adamw(params)
    variance_reduce(optimizer)
    step(optimizer, params, 0)
    before = copy.deepcopy(optimizer.state_dict())
    optimizer.param_groups[1].update(edit)
    with pytest.raises(ValueError, match=message):
        step(optimizer, params, 1)
    for i, state in before["state"].items():
        now = optimizer.state_dict()["state"][i]
        assert all(torch.equal(v, now[k]) for k, v in state.items())


def test_history_of_another_shape_is_refused() -> None:
    params = params_()
    optimizer = adamw(params)
    variance_reduce(optimizer)
    step(optimizer, params, 0)
    optimizer.state[params[0]][LAST_GRAD] = torch.zeros(1, 3)  # which would be broadcast
    with pytest.raises(ValueError, match=r"shape \(4, 3\) has shape \(1, 3\)"):
        step(optimizer, params, 1)

"""gamma="auto" around another optimizer: what it refuses, keeps, saves and loads."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from mars_optim import variance_reduce
from tests.optim.test_gamma_of_changed_models import step, wrapped
from tests.optim.test_variance_reduce_auto import gamma_of, gradients, parameters, train


def sgd(**options: object) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    params = parameters()
    return params, torch.optim.SGD(params, **{"lr": 0.1, "momentum": 0.9, **options})


def by_checkpoint(optimizer: torch.optim.Optimizer) -> None:
    _, other = sgd(nesterov=True)
    optimizer.load_state_dict(other.state_dict())


def by_a_new_group(optimizer: torch.optim.Optimizer) -> None:
    param = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    optimizer.add_param_group({"params": param, "nesterov": True})


def by_hand(optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0]["mars_clip"] = 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [(by_checkpoint, "nesterov=True"), (by_a_new_group, "nesterov=True"), (by_hand, "clip=1.0")],
)
def test_what_auto_refuses_is_refused_later_too(change: Callable, words: str) -> None:
    params, optimizer = sgd()
    variance_reduce(optimizer, gamma="auto")
    train(params, optimizer, range(3))
    change(optimizer)
    before = [p.clone() for p in params]
    with pytest.raises(ValueError, match=words):
        train(params, optimizer, range(3, 4))
    assert all(map(torch.equal, params, before))


def test_auto_written_into_a_group_of_adam_is_refused() -> None:
    params = parameters()
    optimizer = torch.optim.Adam(params)
    variance_reduce(optimizer, clip=None)
    optimizer.param_groups[0]["mars_gamma"] = "auto"
    with pytest.raises(ValueError, match="gamma='auto' does not take Adam"):
        train(params, optimizer, range(1))


def test_a_checkpoint_may_be_loaded_before_it_is_wrapped() -> None:
    params, optimizer = sgd()
    variance_reduce(optimizer, gamma="auto")
    train(params, optimizer, range(25))
    saved = copy.deepcopy(optimizer.state_dict())
    others, resumed = sgd()
    for p, q in zip(params, others, strict=True):
        q.data.copy_(p.data)
    resumed.load_state_dict(saved)
    variance_reduce(resumed, gamma="auto")
    train(params, optimizer, range(25, 50))
    train(others, resumed, range(25, 50))
    assert gamma_of(resumed) == gamma_of(optimizer) != 0.1
    assert all(map(torch.equal, params, others))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.RMSprop])
def test_a_host_without_momentum_is_refused_with_the_reason(kind: Callable) -> None:
    params = parameters()
    optimizer = kind(params, lr=0.1)
    variance_reduce(optimizer, gamma=0.1, clip=None)
    before = [p.clone() for p in params]
    with pytest.raises(ValueError, match=r"averages no gradients .*give the optimizer a momentum"):
        train(params, optimizer, range(1))
    assert all(map(torch.equal, params, before))
    optimizer.param_groups[0]["momentum"] = 0.9  # as a schedule would
    train(params, optimizer, range(1))


@pytest.mark.parametrize("alone", [True, False])
def test_sgd_without_momentum_is_refused_with_a_beta1_too(alone: bool) -> None:
    params = parameters()
    groups = [{"params": params[:1], "momentum": 0.0 if alone else 0.9}, {"params": params[1:]}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    variance_reduce(optimizer, gamma=0.1, beta1=0.9)
    before = [p.clone() for p in params]
    with pytest.raises(ValueError, match=r"SGD without a momentum keeps no state.*give the opti"):
        train(params, optimizer, range(1))
    assert all(map(torch.equal, params, before))


def test_momentum_may_be_given_up_later_with_a_beta1() -> None:
    params = parameters()
    optimizer = torch.optim.SGD(params, lr=0.1, momentum=0.9)
    variance_reduce(optimizer, gamma=0.1, beta1=0.9)
    train(params, optimizer, range(2))
    optimizer.param_groups[0]["momentum"] = 0.0
    train(params, optimizer, range(2, 4))


def test_a_beta1_of_0_is_refused_for_its_own_sake() -> None:
    params = parameters()
    variance_reduce(optimizer := torch.optim.SGD(params, lr=0.1, momentum=0.9), beta1=0.0)
    with pytest.raises(ValueError, match=r"beta1=0 makes the correction .*leave beta1 out"):
        train(params, optimizer, range(1))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("gamma", [0.1, "auto"])
def test_a_step_that_a_scaler_skips_leaves_no_trace(fused: bool, gamma: object) -> None:
    params = [nn.Parameter(p.detach().float()) for p in parameters()]
    optimizer = torch.optim.SGD(params, lr=0.1, momentum=0.9, fused=fused)
    variance_reduce(optimizer, gamma=gamma, clip=None)  # type: ignore[arg-type]
    others = [nn.Parameter(p.detach().clone()) for p in params]
    plain = torch.optim.SGD(others, lr=0.1, momentum=0.9)
    variance_reduce(plain, gamma=gamma, clip=None)  # type: ignore[arg-type]
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for t in range(25):
        overflow = t in (3, 11)
        scale = torch.inf if overflow else float(scaler.scale(torch.ones(())))
        scaler.scale(torch.ones(()))  # makes its tensors
        for p, q, g in zip(params, others, gradients(t), strict=True):
            p.grad, q.grad = scale * g.float(), g.float()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        if not overflow:
            plain.step()
    assert all(torch.allclose(p, q, rtol=1e-5) for p, q in zip(params, others, strict=True))


def nested_or_flat(flat: bool, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    return copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))


@pytest.mark.parametrize("flat", [False, True])
def test_a_flattened_state_keeps_gamma_of_a_wrapped_sgd(flat: bool) -> None:
    runs = []
    for resumed in (False, True):
        torch.manual_seed(1)
        model = nn.Linear(4, 6).double()
        params = list(model.parameters())
        optimizer = wrapped(params)
        draw = torch.Generator().manual_seed(7)
        for t in range(60):
            if resumed and t == 45:
                saved = nested_or_flat(flat, model, optimizer)
                optimizer.zero_grad()  # torch makes the state to load into by a step of zeros
                optimizer = wrapped(params)
                options = StateDictOptions(flatten_optimizer_state_dict=flat)
                set_optimizer_state_dict(model, optimizer, saved, options=options)
            for p in params:
                p.grad = torch.randn(p.shape, generator=draw, dtype=p.dtype) + 0.3
            optimizer.step()
        runs.append((gamma_of(optimizer), params[0].detach().clone()))
    (gamma, weight), (again, after) = runs
    assert gamma == again != 0.1
    assert torch.equal(weight, after)


def test_a_group_keeps_its_gamma_when_its_neighbour_goes() -> None:
    params = [nn.Parameter(torch.randn(5, 4)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [p]} for p in params], lr=1e-3, momentum=0.9)
    variance_reduce(optimizer, gamma="auto")
    for t in range(60):
        params[0].grad = torch.full((5, 4), 1.0 + t)
        params[1].grad = torch.randn(5, 4) * (-1) ** t
        optimizer.step()
    first, second = gamma_of(optimizer), gamma_of(optimizer, 1)
    assert first != second
    del optimizer.param_groups[0]
    optimizer.step()
    assert gamma_of(optimizer) == second


def test_a_plain_checkpoint_ends_the_memory_of_gamma() -> None:
    plain = torch.optim.SGD(parameters(), lr=1e-3, momentum=0.9)
    plain.step()
    saved = copy.deepcopy(plain.state_dict())
    params = parameters()
    optimizer = wrapped(params)
    train(params, optimizer, range(25))
    assert gamma_of(optimizer) != 0.1
    optimizer.load_state_dict(saved)
    train(params, optimizer, range(1))
    assert gamma_of(optimizer) == 0.1
    assert int(optimizer.param_groups[0]["gamma_steps"]) == 1


@pytest.mark.parametrize("before", [False, True])
def test_memory_of_other_parameters_is_refused_when_it_is_loaded(before: bool) -> None:
    params = parameters()
    optimizer = torch.optim.SGD(params, lr=1e-3, momentum=0.9)
    variance_reduce(optimizer, gamma="auto", optimize_1d=before)
    train(params, optimizer, range(25))
    others = parameters()
    other = torch.optim.SGD(others, lr=1e-3, momentum=0.9)
    variance_reduce(other, gamma="auto", optimize_1d=not before)
    with pytest.raises(ValueError, match=rf"saved with another optimize_1d than {not before}"):
        other.load_state_dict(optimizer.state_dict())
    train(others, other, range(3))
    resized = [nn.Parameter(torch.zeros(3, 3)), *parameters()[1:]]
    third = torch.optim.SGD(resized, lr=1e-3, momentum=0.9)
    variance_reduce(third, gamma="auto", optimize_1d=before)
    saved = {**optimizer.state_dict(), "state": {}}
    with pytest.raises(ValueError, match=r"group 0 of SGD: matrix 0 has shape \(3, 3\)"):
        third.load_state_dict(saved)


def test_a_refused_wrap_leaves_what_a_checkpoint_brought() -> None:
    params = parameters()
    optimizer = torch.optim.SGD(params, lr=1e-3, momentum=0.9)
    variance_reduce(optimizer, gamma="auto", optimize_1d=True)
    train(params, optimizer, range(25))
    saved = copy.deepcopy(optimizer.state_dict())
    fresh = torch.optim.SGD(parameters(), lr=1e-3, momentum=0.9)
    fresh.load_state_dict(saved)
    with pytest.raises(ValueError, match="another optimize_1d than False"):
        variance_reduce(fresh, gamma="auto")
    variance_reduce(fresh, gamma="auto", optimize_1d=True)
    assert int(fresh.param_groups[0]["gamma_steps"]) == 25
    assert gamma_of(fresh) == gamma_of(optimizer)
    assert all("mars_last_grad" in state for state in fresh.state.values())


def test_a_wrapped_optimizer_of_lazy_layers_loads_its_memory() -> None:
    def lazy() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.LazyLinear(3)
        return model, wrapped(list(model.parameters()))

    model, optimizer = lazy()
    model(torch.ones(1, 4))
    for _ in range(25):
        step(optimizer, list(model.parameters()), torch.ones_like)
    fresh, other = lazy()
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    fresh(torch.ones(1, 4))
    step(other, list(fresh.parameters()), torch.ones_like)
    assert int(other.param_groups[0]["gamma_steps"]) == 26
    assert gamma_of(other) == gamma_of(optimizer)


def test_a_later_load_hook_may_put_memory_right() -> None:
    params = [nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(5, 9))]
    optimizer = wrapped(params)
    for _ in range(12):
        step(optimizer, params, torch.randn_like)
    saved = copy.deepcopy(optimizer.state_dict())
    turned = copy.deepcopy(saved)
    turned["param_groups"][0]["gamma_probes"].reverse()

    def put_right(_: torch.optim.Optimizer, state_dict: dict) -> dict:
        groups = [
            {**g, "gamma_probes": g["gamma_probes"][::-1]} for g in state_dict["param_groups"]
        ]
        return {**state_dict, "param_groups": groups}

    fresh = wrapped([nn.Parameter(p.detach().clone()) for p in params])
    with pytest.raises(ValueError, match="matrix 0 has shape"):
        fresh.load_state_dict(turned)
    hook = fresh.register_load_state_dict_pre_hook(put_right)
    fresh.load_state_dict(turned)
    assert gamma_of(fresh) == gamma_of(optimizer)
    with pytest.raises(ValueError, match="matrix 0 has shape"):
        fresh.load_state_dict(saved)  # which the hook turns round
    hook.remove()


def test_memory_of_a_number_is_not_saved() -> None:
    params = parameters()
    optimizer = wrapped(params)
    train(params, optimizer, range(12))
    optimizer.param_groups[0]["mars_gamma"] = 0.1
    assert "gamma_now" not in optimizer.state_dict()["param_groups"][0]

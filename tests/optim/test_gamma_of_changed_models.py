"""gamma="auto" where parameters change in the run, come late, or are none of its kind."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from mars_optim import MARS, MARSM, variance_reduce
from tests.optim.test_variance_reduce_auto import parameters, train

CHANGE = [((40, 40), (4, 4)), ((4, 4), (40, 40)), ((6, 10), (10, 6))]


def mars(params: list[nn.Parameter]) -> torch.optim.Optimizer:
    return MARS(params, lr=1e-3, gamma="auto")


def wrapped(params: list[nn.Parameter]) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(params, lr=1e-3, momentum=0.9)
    variance_reduce(optimizer, gamma="auto")
    return optimizer


def step(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], fill: Callable) -> None:
    for param in params:
        param.grad = fill(param)
    optimizer.step()


@pytest.mark.parametrize("make", [mars, wrapped])
@pytest.mark.parametrize(("before", "after"), CHANGE)
def test_a_parameter_of_another_shape_is_sampled_anew(
    make: Callable, before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    param, other = nn.Parameter(torch.randn(before)), nn.Parameter(torch.randn(5, 3))
    optimizer = make([param, other])
    for _ in range(12):
        step(optimizer, [param, other], torch.randn_like)
    optimizer.zero_grad()
    optimizer.state.pop(param)
    param.data = torch.randn(after)
    for _ in range(12):
        step(optimizer, [param, other], torch.ones_like)
    saved = copy.deepcopy(optimizer.state_dict())
    (of_param, of_other) = saved["param_groups"][0]["gamma_probes"]
    fresh = make([param, other])
    for _ in range(12):
        step(fresh, [param, other], torch.ones_like)
    ones = fresh.state_dict()["param_groups"][0]["gamma_probes"]
    assert torch.equal(of_param, ones[0])  # nothing of the old shape, and nothing else's memory
    assert torch.equal(of_other, ones[1])
    make([param, other]).load_state_dict(saved)


def test_a_parameter_whose_data_is_away_is_saved_whole() -> None:
    param = nn.Parameter(torch.randn(4, 6))
    optimizer = mars([param])
    for _ in range(12):
        step(optimizer, [param], torch.randn_like)
    optimizer.zero_grad()
    data, param.data = param.data, torch.empty(0)  # as a host that offloads
    (saved,) = optimizer.state_dict()["param_groups"][0]["gamma_probes"]
    param.data = data
    (again,) = optimizer.state_dict()["param_groups"][0]["gamma_probes"]
    assert saved.shape[1] > 0
    assert torch.equal(saved, again)


def test_two_parameters_that_exchange_sizes_keep_no_columns() -> None:
    params = [nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(8, 9))]
    optimizer = mars(params)
    for _ in range(12):
        step(optimizer, params, torch.randn_like)
    optimizer.zero_grad()
    optimizer.state.clear()
    for param, shape in zip(params, ((8, 9), (4, 6)), strict=True):
        param.data = torch.randn(shape)
    step(optimizer, params, torch.ones_like)
    fresh = mars(params)
    step(fresh, params, torch.ones_like)
    got, want = (o.param_groups[0]["gamma_probes"] for o in (optimizer, fresh))
    assert torch.equal(got, want)


@pytest.mark.parametrize(
    "make",
    [
        lambda ps: MARS(ps, optimize_1d=True, gamma="auto"),
        lambda ps: wrapped(list(ps)),
    ],
)
def test_layers_may_be_lazy_until_their_first_gradient(make: Callable) -> None:
    model = nn.Sequential(nn.LazyLinear(5, bias=False), nn.LazyLinear(3, bias=False))
    optimizer = make(model.parameters())
    optimizer.state_dict()
    first, whole = model[0], model
    for t in range(25):
        out = (first if t < 2 else whole)(torch.randn(4, 6, generator=torch.manual_seed(t)))
        out.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(p.isfinite().all() for p in model.parameters())
    assert optimizer.state_dict()["param_groups"][0]["gamma_now"] != 0.1  # it was chosen


@pytest.mark.parametrize("options", [{}, {"gamma": "auto"}, {"rule": "muon", "optimize_1d": True}])
def test_a_lazy_parameter_that_must_be_sorted_is_named(options: dict) -> None:
    model = nn.Sequential(nn.LazyLinear(5, bias=False))
    with pytest.raises(ValueError, match=r"0\.weight is lazy: .*Pass one first"):
        MARS(model.named_parameters(), **options)


# --- memory, and models that are moved ------------------------------------------------------------


def test_memory_of_another_number_of_groups_is_named() -> None:
    one = mars([nn.Parameter(torch.ones(2, 2))])
    other = mars([nn.Parameter(torch.ones(2, 2))])
    other.add_param_group({"params": [nn.Parameter(torch.ones(2, 2))]})
    assert isinstance(one, MARS)
    assert isinstance(other, MARS)
    with pytest.raises(ValueError, match="of 1 parameter groups and the optimizer has 2"):
        other.remember(one.memory())


def test_auto_by_hand_in_a_group_is_told_the_way() -> None:
    optimizer = MARS([param := nn.Parameter(torch.ones(2, 2))])
    optimizer.param_groups[0]["gamma"] = "auto"
    param.grad = torch.ones(2, 2)
    with pytest.raises(ValueError, match=r"set gamma_schedule='auto', correction='folded'"):
        optimizer.step()


@pytest.mark.parametrize("kind", [MARS, MARSM])
def test_a_refused_step_leaves_autos_memory(kind: type[MARS]) -> None:
    runs = []
    for refused in (False, True):
        torch.manual_seed(3)
        params = [nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(5, 3))]
        optimizer = kind(params, lr=1e-3, gamma="auto")
        for _ in range(12):
            step(optimizer, params, torch.randn_like)
        if refused:
            before, params[0].data = params[0].data, torch.zeros(4, 4)
            params[0].grad = torch.zeros(4, 4)
            with pytest.raises(ValueError, match=r"\(4, 4\)"):
                optimizer.step()
            params[0].grad, params[0].data = None, before
        for _ in range(12):
            step(optimizer, params, torch.randn_like)
        runs.append(optimizer.state_dict()["param_groups"][0])
    plain, after = runs
    for key in ("gamma_now", "gamma_steps", "gamma_sums", "gamma_memory", "gamma_silent"):
        assert torch.equal(plain[key], after[key]), key
    for one, other in zip(plain["gamma_probes"], after["gamma_probes"], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", [MARS, MARSM])
def test_memory_that_is_no_tensor_is_named_with_the_way_out(kind: type[MARS]) -> None:
    params = parameters()
    optimizer = kind(params, lr=1e-3, gamma="auto")
    train(params, optimizer, range(12))
    saved = optimizer.state_dict()
    for key in ("gamma_probes", "gamma_sums", "gamma_memory"):
        wrong = copy.deepcopy(saved)
        value = wrong["param_groups"][0][key]
        changed = [p.tolist() for p in value] if key == "gamma_probes" else value.tolist()
        wrong["param_groups"][0][key] = changed
        with pytest.raises(ValueError, match=f"{key} of the checkpoint is a list and no tensor"):
            kind(parameters(), lr=1e-3, gamma="auto").load_state_dict(wrong)
    optimizer.param_groups[0]["gamma_now"] = "x"
    with pytest.raises(ValueError, match="gamma_now='x' must be a number"):
        optimizer.step()


def test_vectors_without_momentum_need_no_choice_of_gamma() -> None:
    params = [nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(3))]
    optimizer = MARS(params, lr=1e-3, gamma="auto", betas_1d=(0.0, 0.95))
    step(optimizer, params, torch.randn_like)
    with pytest.raises(ValueError, match=r"betas\[0\] above 0, not betas=\(0.0, 0.95\)"):
        MARS(params, lr=1e-3, gamma="auto", betas=(0.0, 0.95))


@pytest.fixture
def swapped() -> Iterator[None]:
    """Modules that move swap the content of their parameters, as on accelerators."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.mark.usefixtures("swapped")
@pytest.mark.parametrize("make", [mars, wrapped])
def test_a_model_may_be_moved_after_its_optimizer_is_made(make: Callable) -> None:
    model = nn.Linear(4, 3)
    optimizer = make(list(model.parameters()))
    model.to("meta")  # in place of an accelerator
    for _ in range(12):
        step(optimizer, list(model.parameters()), torch.empty_like)
    assert optimizer.param_groups[0]["gamma_probes"].is_meta


@pytest.mark.usefixtures("swapped")
def test_a_compiled_step_says_that_the_model_was_moved() -> None:
    model = nn.Linear(4, 3)
    optimizer = mars(list(model.parameters()))
    model.to("meta")
    for p in model.parameters():
        p.grad = torch.empty_like(p)
    compiled = torch.compile(optimizer.step, fullgraph=True, backend="eager")
    with pytest.raises(Exception, match="moved to meta after the optimizer was made"):
        compiled()


@pytest.mark.parametrize("make", [mars, wrapped])
def test_groups_made_of_anothers_keys_share_no_memory(make: Callable) -> None:
    params = [nn.Parameter(torch.randn(5, 4)) for _ in range(2)]
    optimizer = make(params[:1])
    for _ in range(15):
        step(optimizer, params[:1], torch.randn_like)
    (group,) = optimizer.param_groups
    optimizer.add_param_group({**group, "params": params[1:]})
    for _ in range(10):
        step(optimizer, params, torch.randn_like)
    first, second = optimizer.param_groups
    assert [float(g["gamma_steps"]) for g in (first, second)] == [25.0, 25.0]
    assert first["gamma_now"] is not second["gamma_now"]


@pytest.mark.parametrize("make", [mars, wrapped])
def test_real_parameters_may_follow_those_on_meta(make: Callable) -> None:
    model = nn.Linear(4, 3, device="meta")
    optimizer = make(list(model.parameters()))
    params = [nn.Parameter(torch.randn(p.shape)) for p in model.parameters()]
    ids = {id(old): new for old, new in zip(model.parameters(), params, strict=True)}
    for group in optimizer.param_groups:
        group["params"] = [ids[id(p)] for p in group["params"]]
    for _ in range(12):
        step(optimizer, params, torch.randn_like)
    assert not optimizer.param_groups[0]["gamma_now"].is_meta

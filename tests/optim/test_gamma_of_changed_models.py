"""gamma="auto" where parameters change in the run, come late, or are none of its kind."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from mars_optim import MARS, MARSM, MARSLion, MARSShampoo, param_groups, variance_reduce
from tests.optim.test_variance_reduce_auto import gamma_of, gradients, parameters, train

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


class Vectors(nn.Module):
    """A matrix and vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.linear(x))
        return out


WORDS = r"gamma='auto' corrects nothing, since vectors get plain AdamW and .*optimize_1d=True"


@pytest.mark.parametrize("kind", [MARS, MARSLion, MARSShampoo, MARSM])
def test_auto_for_vectors_alone_is_told_at_once(kind: type[MARS]) -> None:
    with pytest.warns(UserWarning, match=WORDS):
        kind([nn.Parameter(torch.ones(5))], gamma="auto")


@pytest.mark.parametrize("kind", [MARS, MARSLion, MARSShampoo, MARSM])
def test_auto_with_frozen_matrices_is_told_in_the_first_step(kind: type[MARS]) -> None:
    model = Vectors()
    optimizer = kind(model.parameters(), gamma="auto")
    model.linear.weight.requires_grad_(False)
    for expected in (True, False):  # once
        model(torch.randn(2, 4)).square().sum().backward()
        if expected:
            with pytest.warns(UserWarning, match=WORDS):
                optimizer.step()
        else:
            optimizer.step()


def test_param_groups_tell_of_auto_without_a_matrix() -> None:
    model = Vectors()
    model.linear.weight.requires_grad_(False)
    words = r"param_groups: gamma='auto' corrects nothing: all that the model trains \(vector\)"
    with pytest.warns(UserWarning, match=words):
        param_groups(model, gamma="auto")


def test_a_matrix_of_another_group_is_no_vector() -> None:
    auto, other = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(2, 2))
    groups = [{"params": [auto], "gamma": "auto"}, {"params": [other], "gamma": 0.025}]
    optimizer = MARS(groups)
    other.grad = torch.ones(2, 2)  # the other's turn comes later
    optimizer.step()


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


# --- around another optimizer ---------------------------------------------------------------------


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


def test_memory_of_a_number_is_not_saved() -> None:
    params = parameters()
    optimizer = wrapped(params)
    train(params, optimizer, range(12))
    optimizer.param_groups[0]["mars_gamma"] = 0.1
    assert "gamma_now" not in optimizer.state_dict()["param_groups"][0]

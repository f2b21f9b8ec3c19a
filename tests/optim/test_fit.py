"""State that does not fit its parameter is refused by name, before anything moves."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim import MARS, MARSM, MARSAdamW, MARSLion, param_groups
from tests.support.cases import copies, make_grads, same

PATHS: dict[str, dict[str, Any]] = {
    "auto": {},
    "plain": {"gamma": 0.0, "clip": None},
    "folded": {"correction": "folded"},
    "foreach": {"foreach": True},
    "reference": {"foreach": False},
    "torch's fused": {"gamma": 0.0, "clip": None, "fused": True},
    "mixed dtypes": {"state_dtype": torch.float64, "fused": False},
}
RESHAPED = {
    "longer": ((10,), (12,)),
    "shorter": ((12,), (10,)),
    "transposed": ((4, 10), (10, 4)),
    "more rows": ((100, 8), (103, 8)),
    "flattened": ((6, 4), (24,)),
}


def stepped(make: Any, *shapes: tuple[int, ...], names: str = "", **options: Any) -> Any:
    """An optimizer after one step, and its parameters."""
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    given = list(zip(names.split(), params, strict=True)) if names else params
    optimizer = make(given, **options)
    for param, grad in zip(params, make_grads(params, 0), strict=True):
        param.grad = grad
    optimizer.step()
    return optimizer, params


@pytest.mark.parametrize("way", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize(("old", "new"), RESHAPED.values(), ids=RESHAPED)
def test_loading_a_misfit_names_both_shapes_and_changes_nothing(
    old: tuple[int, ...], new: tuple[int, ...], way: dict[str, Any]
) -> None:
    way = {**way, "optimize_1d": True}  # one group, whatever the shapes
    saved = stepped(MARSAdamW, old, names="head", **way)[0].state_dict()
    optimizer, (param,) = stepped(MARSAdamW, new, names="head", lr=0.5, **way)
    state = {k: v.clone() for k, v in optimizer.state[param].items()}
    with pytest.raises(ValueError, match="parameter 'head' has shape ") as told:
        optimizer.load_state_dict(saved)
    assert str(new) in str(told.value)
    assert str(old) in str(told.value)
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert all(torch.equal(optimizer.state[param][k], v) for k, v in state.items())


@pytest.mark.parametrize("old", [(5,), (7,)])
def test_vectors_under_plain_adamw_are_looked_at_too(old: tuple[int, ...]) -> None:
    saved = stepped(MARSLion, (3, 2), old)[0].state_dict()
    optimizer, _ = stepped(MARSLion, (3, 2), (6,))
    with pytest.raises(ValueError, match="parameter 0 of group 1 has shape"):
        optimizer.load_state_dict(saved)


def test_a_resized_embedding_beside_muon_is_refused() -> None:
    def optimizer_of(tokens: int) -> MARS:
        model = nn.Sequential(nn.Embedding(tokens, 4), nn.Linear(4, 4))
        optimizer = MARSM(param_groups(model, rule="muon"))
        model(torch.tensor([1, 2])).sum().backward()
        optimizer.step()
        return optimizer

    with pytest.raises(ValueError, match=r"'0\.weight' has shape \(12, 4\).*\(10, 4\)"):
        optimizer_of(12).load_state_dict(optimizer_of(10).state_dict())


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq", "max_exp_avg_sq", "last_grad"])
@pytest.mark.parametrize("way", PATHS.values(), ids=PATHS)
def test_a_step_with_state_of_another_shape_moves_nothing(way: dict[str, Any], name: str) -> None:
    optimizer, params = stepped(MARSAdamW, (3, 2), (5, 4), amsgrad=True, **way)
    if name not in optimizer.state[params[1]]:
        pytest.skip("this path keeps no such state")
    for wrong in ((4, 5), (2, 4), (1, 4), (5, 1), (20,)):
        optimizer.state[params[1]][name] = torch.zeros(wrong)
        before, steps = copies(params), [optimizer.state[p]["step"].item() for p in params]
        with pytest.raises(ValueError, match=rf"parameter 1 of group 0 has shape \(5, 4\).*{name}"):
            optimizer.step()
        assert same(params, before)
        assert steps == [optimizer.state[p]["step"].item() for p in params]


@pytest.mark.parametrize("way", PATHS.values(), ids=PATHS)
def test_gradient_from_before_a_parameter_resize_is_refused(way: dict[str, Any]) -> None:
    optimizer, (param,) = stepped(MARSAdamW, (3, 2), names="w", **way)
    param.data = torch.ones(5, 2)
    with pytest.raises(ValueError, match=r"'w' has shape \(5, 2\) and its gradient \(3, 2\)"):
        optimizer.step()
    assert torch.equal(param, torch.ones(5, 2))


WRONG: dict[str, Any] = {
    "whole numbers": lambda v: v.long(),
    "complex": lambda v: v.to(torch.complex64),
    "sparse": lambda v: v.to_sparse(),
    "elsewhere": lambda v: v.to("meta"),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("way", PATHS.values(), ids=PATHS)
def test_state_of_another_kind_is_refused_on_every_path(way: dict[str, Any], change: Any) -> None:
    optimizer, (param,) = stepped(MARSAdamW, (3, 2), names="w", **way)
    before = copies([param])
    state = optimizer.state[param]
    state["exp_avg_sq"] = change(state["exp_avg_sq"])
    with pytest.raises(ValueError, match=r"parameter 'w' .*exp_avg_sq"):
        optimizer.step()
    assert same([param], before)


# --- order ----------------------------------------------------------------------------------


def test_names_in_another_order_are_refused() -> None:
    saved = stepped(MARSAdamW, (3, 2), (3, 2), names="a b")[0].state_dict()
    optimizer, _ = stepped(MARSAdamW, (3, 2), (3, 2), names="b a")
    with pytest.raises(ValueError, match="parameter 'b' stands where the loaded state has 'a'"):
        optimizer.load_state_dict(saved)


def test_new_names_in_the_same_order_are_no_evidence() -> None:
    saved = stepped(MARSAdamW, (3, 2), (3, 2), names="module.a module.b")[0].state_dict()
    optimizer, _ = stepped(MARSAdamW, (3, 2), (3, 2), names="a b")
    optimizer.load_state_dict(saved)


def test_a_hook_that_sorts_is_trusted() -> None:
    saved = stepped(MARSAdamW, (3, 2), (3, 2), names="a b")[0].state_dict()
    optimizer, params = stepped(MARSAdamW, (3, 2), (3, 2), names="b a")
    optimizer.register_load_state_dict_pre_hook(
        lambda _, state: {**state, "state": {0: state["state"][1], 1: state["state"][0]}}
    )
    optimizer.load_state_dict(saved)
    assert torch.equal(optimizer.state[params[0]]["exp_avg"], saved["state"][1]["exp_avg"])


# --- bits and the memory of gamma and the two-gradient form --------------------------------------


@pytest.mark.parametrize("way", PATHS.values(), ids=PATHS)
def test_a_parameter_that_is_a_lazy_negative_is_refused(way: dict[str, Any]) -> None:
    param = nn.Parameter(torch.randn(6, dtype=torch.complex64).conj().imag)
    assert param.is_neg()
    param.grad = torch.ones(6)
    with pytest.raises(ValueError, match=r"lazy conjugate or negative.*resolve_neg"):
        MARSAdamW([param], **way).step()


def test_lazy_conjugate_parameter_is_refused_not_left_unmoved() -> None:
    param = nn.Parameter(torch.randn(6, 2, dtype=torch.complex64).conj())
    param.grad = torch.ones_like(param)
    with pytest.raises(ValueError, match=r"lazy conjugate or negative.*resolve_conj"):
        MARSAdamW([param]).step()


@pytest.mark.parametrize("way", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_state_that_is_a_lazy_view_counts_with_its_value(
    way: dict[str, Any], dtype: torch.dtype
) -> None:
    way = way if dtype == torch.float32 else {k: v for k, v in way.items() if k != "state_dtype"}
    ends = []
    for lazy in (False, True):
        param = nn.Parameter(torch.ones(4, 3, dtype=dtype))
        optimizer = MARSAdamW([param], **way)
        for step in range(3):
            param.grad = make_grads([torch.empty(4, 3)], step)[0].to(dtype) * (1 + 0.5 * step)
            optimizer.step()
            kept = optimizer.state[param]["exp_avg"]
            if lazy:  # the same value in another guise
                kept = (-kept).conj().resolve_conj()
                optimizer.state[param]["exp_avg"] = torch._neg_view(kept).conj()
        ends.append(param.detach())
    torch.testing.assert_close(*ends)


def test_a_sample_of_another_size_is_refused() -> None:
    options: dict[str, Any] = dict(gamma="auto", names="w")
    saved = copy.deepcopy(stepped(MARSAdamW, (5, 4), **options)[0].state_dict())
    saved["param_groups"][0]["gamma_probes"] = [torch.zeros(3, 7)]
    optimizer, _ = stepped(MARSAdamW, (5, 4), **options)
    with pytest.raises(ValueError, match=r"'w' has shape \(5, 4\).*gamma_probe.*\(3, 7\)"):
        optimizer.load_state_dict(saved)


def test_previous_point_before_another_correction_is_dropped() -> None:
    param = nn.Parameter(torch.ones(3, 2))
    optimizer = MARSAdamW([param], correction="exact", clip=None)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = param.square().sum()
        value.backward()
        return value

    for correction in ("exact", "exact", "approx", "approx", "exact"):
        optimizer.param_groups[0]["correction"] = correction
        here = param.detach().clone()
        optimizer.step(loss)
        if correction == "exact":
            assert torch.equal(optimizer.state[param]["last_param"], here)
        else:
            assert "last_param" not in optimizer.state[param]

"""Megatron's checkpoints, by a copy of what its wrappers do (megatron-core 0.19.2); and torch's."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim import MARS, MARSM, MARSAdamW, MARSLion, MARSShampoo
from mars_optim.gamma_numbers import sampled

State = dict[str, Any]

FORMS: list[tuple[type[MARS], dict[str, Any]]] = [
    (MARSAdamW, {}),
    (MARSAdamW, {"correction": "folded", "amsgrad": True}),
    (MARSAdamW, {"gamma": "auto"}),
    (MARSAdamW, {"gamma_schedule": "least_error"}),
    (MARSLion, {"optimize_1d": True}),
    (MARSShampoo, {}),
    (MARSM, {"gamma": "auto"}),
]


def init_state(optimizer: Any) -> None:
    """emerging_optimizers._eopt_init_state_fn, word for word."""
    for group in optimizer.param_groups:
        optimizer._init_group(group, skip_non_grad_params=False)


def sharded_state_dict(optimizer: Any, *, is_loading: bool = False) -> State:
    """FP32Optimizer.sharded_state_dict: tensors of the parameter's shape, and one common step."""
    if is_loading:
        init_state(optimizer)
    state_dict = optimizer.state_dict()
    params = [p for group in optimizer.param_groups for p in group["params"]]
    steps = [state["step"] for state in state_dict["state"].values() if "step" in state]
    assert all(step == steps[0] for step in steps), "Mcore only supports a shared step"
    sharded: State = {}
    for i, state in state_dict["state"].items():
        for key, tensor in state.items():
            if key != "step":
                assert tuple(tensor.shape) == tuple(params[i].shape), f"{key} does not match"
        sharded[i] = {key: tensor for key, tensor in state.items() if key != "step"}
    groups = copy.deepcopy(state_dict["param_groups"])
    return {"state": {**sharded, "common_step": steps[0]}, "param_groups": groups}


def load(optimizer: Any, saved: State) -> None:
    """dist_checkpointing.load of what a fresh optimizer asks for, then load_state_dict."""
    wanted = sharded_state_dict(optimizer, is_loading=True)
    state = {
        i: {key: saved["state"][i][key].clone() for key in its} | {"step": 0}
        for i, its in wanted["state"].items()
        if i != "common_step"
    }
    for its in state.values():
        its["step"] = copy.deepcopy(saved["state"]["common_step"])
    optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((70, 66), (5, 9), (9,))
    return [nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]


def train(params: list[nn.Parameter], optimizer: MARS, steps: range) -> None:
    for t in steps:
        generator = torch.Generator().manual_seed(t)
        for p in params:
            p.grad = p.detach() + torch.randn(p.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize(("cls", "options"), FORMS)
def test_a_run_saved_by_megatron_goes_on_to_the_same_bits(
    cls: type[MARS], options: dict[str, Any]
) -> None:
    params = weights()
    optimizer = cls(params, lr=1e-2, **options)
    train(params, optimizer, range(25))
    saved = copy.deepcopy(sharded_state_dict(optimizer))
    fresh = [nn.Parameter(p.detach().clone()) for p in params]
    resumed = cls(fresh, lr=1e-2, **options)
    load(resumed, saved)
    train(params, optimizer, range(25, 45))
    train(fresh, resumed, range(25, 45))
    for p, q in zip(params, fresh, strict=True):
        assert torch.equal(p, q)
    if optimizer.param_groups[0]["gamma_schedule"] != "constant":
        assert resumed.param_groups[0]["gamma_now"] == optimizer.param_groups[0]["gamma_now"]
        assert resumed.param_groups[0]["gamma_now"] != optimizer.param_groups[0]["gamma"]


@pytest.mark.parametrize("options", [{}, {"gamma": "auto"}])
def test_a_state_made_before_the_first_gradient_changes_no_step(options: dict[str, Any]) -> None:
    params, others = weights(), weights()
    primed, other = MARSAdamW(params, lr=1e-2, **options), MARSAdamW(others, lr=1e-2, **options)
    init_state(primed)
    assert all(primed.state[p]["step"] == 0 for p in params)
    train(params, primed, range(3))
    train(others, other, range(3))
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


def with_probes_in_state(state_dict: State) -> State:
    """As the pilot's checkpoints have it, which go by names of parameters."""
    old = copy.deepcopy(state_dict)
    for group in old["param_groups"]:
        for i, probe in zip(group["params"], group.pop("gamma_probes", ()), strict=False):
            old["state"][i]["gamma_probe"] = probe
    return old


def test_checkpoint_with_probes_in_state_resumes_bit_identically() -> None:
    params = weights()
    optimizer = MARSAdamW(params, lr=1e-2, gamma="auto")
    train(params, optimizer, range(25))
    old = with_probes_in_state(optimizer.state_dict())
    assert old["state"][0]["gamma_probe"].shape == (3, sampled((70, 66)))
    fresh = [nn.Parameter(p.detach().clone()) for p in params]
    resumed = MARSAdamW(fresh, lr=1e-2, gamma="auto")
    resumed.load_state_dict(old)
    train(params, optimizer, range(25, 45))
    train(fresh, resumed, range(25, 45))
    assert all(torch.equal(p, q) for p, q in zip(params, fresh, strict=True))


@pytest.mark.parametrize("schedule", ["auto", "least_error"])
def test_all_state_of_a_parameter_is_of_its_shape_or_one_number(schedule: str) -> None:
    params = weights()
    optimizer = MARS(params, lr=1e-2, gamma_schedule=schedule, optimize_1d=True)
    train(params, optimizer, range(4))
    saved = optimizer.state_dict()
    for i, p in enumerate(params):
        for tensor in saved["state"][i].values():
            assert isinstance(tensor, Tensor)
            assert tensor.shape in (p.shape, ())


def test_probes_of_another_number_of_parameters_are_refused() -> None:
    params = weights()
    optimizer = MARS(params, lr=1e-2, gamma="auto", optimize_1d=True)
    train(params, optimizer, range(4))
    saved = optimizer.state_dict()
    saved["param_groups"][0]["gamma_probes"].pop()
    with pytest.raises(ValueError, match=r"gamma_probes are of 2 parameters .* has 3"):
        optimizer.load_state_dict(saved)


def through_dcp(folder: Path, *, flattened: bool) -> tuple[nn.Module, MARS, nn.Module, MARS]:
    """A trained model with its optimizer, and both again from torch's distributed checkpoint."""
    from torch.distributed import checkpoint as dcp
    from torch.distributed.checkpoint import state_dict as dcp_state

    def made() -> tuple[nn.Module, MARS]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(70, 66), nn.Linear(66, 70))
        return model, MARSAdamW(model.parameters(), lr=1e-2, gamma="auto")

    options = dcp_state.StateDictOptions(flatten_optimizer_state_dict=flattened)
    (model, optimizer), (again, resumed) = made(), made()
    train(list(model.parameters()), optimizer, range(25))
    kept = dcp_state.get_optimizer_state_dict(model, optimizer, options=options)
    dcp.save({"model": model.state_dict(), "optimizer": kept}, checkpoint_id=folder)
    into = dcp_state.get_optimizer_state_dict(again, resumed, options=options)
    asked = {"model": again.state_dict(), "optimizer": into}
    dcp.load(asked, checkpoint_id=folder)
    again.load_state_dict(asked["model"])
    dcp_state.set_optimizer_state_dict(again, resumed, asked["optimizer"], options=options)
    return model, optimizer, again, resumed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("flattened", [False, True], ids=["nested", "flattened"])
def test_auto_gamma_resumes_from_distributed_checkpoint_bitwise(
    flattened: bool, tmp_path: Path
) -> None:
    model, optimizer, again, resumed = through_dcp(tmp_path, flattened=flattened)
    train(list(model.parameters()), optimizer, range(25, 45))
    train(list(again.parameters()), resumed, range(25, 45))
    assert optimizer.param_groups[0]["gamma_now"] == resumed.param_groups[0]["gamma_now"]
    for p, q in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_checkpoint_that_lost_gammas_memory_is_refused() -> None:
    params = weights()
    optimizer = MARSAdamW(params, lr=1e-2, gamma="auto")
    train(params, optimizer, range(4))
    saved = optimizer.state_dict()
    del saved["param_groups"][0]["gamma_probes"]
    with pytest.raises(ValueError, match=r"lacks gamma_probes.*all of the optimizer's state_dict"):
        optimizer.load_state_dict(saved)

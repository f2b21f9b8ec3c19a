"""In torchtitan's container, and with torch's distributed checkpoint in one process."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)

from mars_optim import MARS, MARSM, MARSAdamW
from tests.support.titan import OptimizersContainer, ParamGroupConfig, init_fresh_optim_state
from tests.support.toy import (
    OPTIMIZERS,
    Toy,
    assert_same,
    assert_same_model,
    batches,
    make_toy,
    state_of,
    train_by_hand,
)

every_optimizer = pytest.mark.parametrize("choice", OPTIMIZERS)
every_implementation = pytest.mark.parametrize("implementation", ["fused", "foreach", "for-loop"])
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")

# torch has no fused kernel for Newton-Schulz: its group takes back the container's fused=True
UNFUSED = {"fused": None}

OURS: dict[str, Any] = {"MARSAdamW": MARSAdamW, "MARSM": MARSM}


class Optimizers(OptimizersContainer):
    @dataclass(kw_only=True, slots=True)
    class Config(OptimizersContainer.Config):
        pass

    @staticmethod
    def _resolve_optimizer_factory(name: str) -> Any:
        return OURS.get(name) or OptimizersContainer._resolve_optimizer_factory(name)


class Nameless(OptimizersContainer):
    """As our page had it: without a Config of its own."""

    _resolve_optimizer_factory = staticmethod(Optimizers._resolve_optimizer_factory)


def contained(
    implementation: str, matrices: dict[str, Any] = UNFUSED
) -> tuple[Toy, OptimizersContainer]:
    model = make_toy()
    configs = [
        ParamGroupConfig(pattern=r"\.bias$", optimizer_name="AdamW", optimizer_kwargs={"lr": 1e-3}),
        ParamGroupConfig(
            pattern="^down", optimizer_name="MARSAdamW", optimizer_kwargs={"lr": 3e-3, "gamma": 0.1}
        ),
        ParamGroupConfig(
            pattern=".*", optimizer_name="MARSM", optimizer_kwargs={"lr": 1e-2, **matrices}
        ),
    ]
    config: Any = Optimizers.Config(param_groups=configs)
    config.implementation = implementation
    return model, config.build(model_parts=[model])


def test_container_config_builds_the_class_it_is_nested_in() -> None:
    configs = [ParamGroupConfig(pattern=".*", optimizer_name="MARSM")]
    with pytest.raises(NotImplementedError, match="Optimizer MARSM not added"):
        Nameless.Config(param_groups=configs).build(model_parts=[make_toy()])
    own = Optimizers.Config(param_groups=configs).build(model_parts=[make_toy()])
    assert [type(optimizer) for optimizer in own] == [MARSM]


@every_implementation
def test_container_keeps_names_and_implementation_in_every_group(implementation: str) -> None:
    model, container = contained(implementation)
    found = {}
    for optimizer in container.optimizers:
        for group in optimizer.param_groups:
            unfused = group.get("rule") == "muon" or isinstance(optimizer, MARSM)
            assert group["fused"] == (None if unfused else implementation == "fused")
            assert group["foreach"] == (implementation == "foreach")
            found.update(zip(group["param_names"], group["params"], strict=True))
    assert all(found[name] is param for name, param in model.named_parameters())


@every_implementation
def test_container_resumed_from_flat_state_equals_uninterrupted(
    implementation: str,
) -> None:
    model, container = contained(implementation)
    train_by_hand(model, container, batches(6)[:3])
    weights = copy.deepcopy(model.state_dict())
    flat = copy.deepcopy(container.state_dict())
    train_by_hand(model, container, batches(6)[3:])

    resumed, other = contained(implementation)
    resumed.load_state_dict(weights)
    other.load_state_dict(flat)
    train_by_hand(resumed, other, batches(6)[3:])
    assert_same_model(model, resumed)
    assert "state.up.weight.last_grad" in flat
    assert "state.down.weight.last_grad" in flat


def test_fused_newton_schulz_is_refused_before_anything_moves() -> None:
    model, container = contained("fused", matrices={})
    with pytest.raises(ValueError, match="fused=True is not possible here"):
        train_by_hand(model, container, batches(1))
    assert torch.equal(model.up.weight, make_toy().up.weight)


def test_container_loads_an_old_checkpoint_twice() -> None:
    model, container = contained("for-loop")
    train_by_hand(model, container, batches(2))
    flat = container.state_dict()
    _, other = contained("for-loop")
    other.load_state_dict(flat)
    other.load_state_dict(flat)  # a roll-back


def test_exact_form_primes_gradientless_parameter_without_a_move() -> None:
    model = make_toy()
    spare = torch.nn.Parameter(torch.ones(3, 3))
    named = [*model.named_parameters(), ("spare", spare)]
    optimizer = MARSAdamW(named, lr=1e-2, correction="exact")
    train_by_hand(model, optimizer, batches(2))
    init_fresh_optim_state(optimizer)
    assert torch.equal(spare, torch.ones(3, 3))
    assert not optimizer.state[spare]["last_grad"].any()


def test_exact_form_starts_from_the_plain_gradient_after_priming() -> None:
    model = make_toy()
    optimizer = MARSAdamW(model.parameters(), lr=1e-2, correction="exact", clip=None)
    get_optimizer_state_dict(model, optimizer)
    train_by_hand(model, optimizer, batches(1))
    for param in (model.up.weight, model.down.weight):
        assert param.grad is not None
        torch.testing.assert_close(optimizer.state[param]["exp_avg"], 0.05 * param.grad)


@every_optimizer
@pytest.mark.parametrize("tensor_lr", [False, True])
def test_priming_step_moves_nothing_and_leaves_no_history(choice: str, tensor_lr: bool) -> None:
    model = make_toy()
    lr: Any = torch.tensor(1e-2) if tensor_lr else 1e-2
    optimizer = OPTIMIZERS[choice](model.parameters(), lr=lr)
    get_optimizer_state_dict(model, optimizer)
    assert_same_model(make_toy(), model)
    for state in optimizer.state.values():
        assert all(not value.any() for key, value in state.items() if key != "step")
    assert all(float(group["lr"]) == pytest.approx(1e-2) for group in optimizer.param_groups)
    assert all(param.grad is None for param in model.parameters())


def test_first_moment_after_priming_is_that_without() -> None:
    primed, plain = make_toy(), make_toy()
    one = MARSAdamW(primed.parameters(), lr=1e-2)
    other = MARSAdamW(plain.parameters(), lr=1e-2)
    get_optimizer_state_dict(primed, one)
    train_by_hand(primed, one, batches(1))
    train_by_hand(plain, other, batches(1))
    for p, q in zip(primed.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one.state[p]["exp_avg"], other.state[q]["exp_avg"])


@every_optimizer
@pytest.mark.parametrize("flat", [False, True])
def test_set_optimizer_state_dict_resumes_to_the_same_bits(choice: str, flat: bool) -> None:
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    model = make_toy()
    optimizer = OPTIMIZERS[choice](model.named_parameters(), lr=1e-2)
    train_by_hand(model, optimizer, batches(6)[:3])
    weights = copy.deepcopy(model.state_dict())
    saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))

    resumed = make_toy()
    loaded = OPTIMIZERS[choice](resumed.named_parameters(), lr=5e-1)
    resumed.load_state_dict(weights)
    set_optimizer_state_dict(resumed, loaded, saved, options=options)
    train_by_hand(model, optimizer, batches(6)[3:])
    train_by_hand(resumed, loaded, batches(6)[3:])
    assert_same_model(model, resumed)
    assert_same(state_of(optimizer), state_of(loaded))


@pytest.mark.parametrize("correction", ["approx", "exact"])
def test_dcp_save_and_load_resume_to_the_same_bits(correction: Any, tmp_path: Path) -> None:
    model = make_toy()
    optimizer = MARS(model.named_parameters(), lr=1e-2, correction=correction)
    train_by_hand(model, optimizer, batches(6)[:3])
    weights, state = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": state}, checkpoint_id=tmp_path, no_dist=True)
    train_by_hand(model, optimizer, batches(6)[3:])

    resumed = make_toy()
    loaded = MARS(resumed.named_parameters(), lr=1e-2, correction=correction)
    weights, state = get_state_dict(resumed, loaded)
    whole = {"model": weights, "optimizer": state}
    dcp.load(whole, checkpoint_id=tmp_path, no_dist=True)
    set_state_dict(
        resumed,
        loaded,
        model_state_dict=whole["model"],
        optim_state_dict=whole["optimizer"],
    )
    train_by_hand(resumed, loaded, batches(6)[3:])
    assert_same_model(model, resumed)
    assert_same(state_of(optimizer), state_of(loaded))

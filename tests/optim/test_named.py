"""Optimizers by name: the pilot's arms of the same names, for a model and for a host's groups."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import mars_optim
from mars_optim import MARS, create, list_optimizers
from mars_optim.experiment.plan.arms import ABLATIONS, ARMS, ablation_name
from mars_optim.experiment.training.optimizer import build_optimizer
from tests.support.cases import make_params
from tests.support.toy import batches, loss_of, make_toy


def trained(optimizer: Any, model: Any, passes: int) -> list[torch.Tensor]:
    for batch in batches(3):
        for _ in range(passes):
            optimizer.step(lambda batch=batch: backward(model, optimizer, batch))
    return [param.detach() for param in model.parameters()]


def backward(model: Any, optimizer: Any, batch: Any) -> float:
    optimizer.zero_grad()
    loss = loss_of(model, batch)
    loss.backward()
    return loss.item()


@pytest.mark.parametrize("name", list_optimizers())
def test_name_is_the_arm_of_the_pilot_to_the_bit(name: str) -> None:
    ours, theirs = make_toy(), make_toy()
    by_arm = build_optimizer(theirs, ARMS[name], lr=ARMS[name].lr)
    for a, b in zip(trained(create(name, ours), ours, 2), trained(by_arm, theirs, 2), strict=True):
        assert torch.equal(a, b)


def test_every_arm_of_ours_but_ablations_has_a_name() -> None:
    ours = {name for name, arm in ARMS.items() if arm.optimizer == "mars"}
    ablations = {ablation_name("mars-adamw", kind) for kind in ABLATIONS}
    assert ours - ablations == set(list_optimizers())


def test_options_win_over_those_of_the_name() -> None:
    optimizer = create("mars-m", make_toy(), lr=0.5, gamma="auto", lr_1d=0.25, eps=1e-5)
    matrices, vectors = optimizer.param_groups[0], optimizer.param_groups[-1]
    assert (matrices["rule"], matrices["lr"], matrices["correction"]) == ("muon", 0.5, "folded")
    assert (vectors["lr"], vectors["eps"]) == (0.25, 1e-5)


def test_groups_of_a_host_keep_what_they_say() -> None:
    matrix, _, vector, _ = make_params()
    optimizer = create("mars-lion", [{"params": [matrix, vector], "lr": 0.5}], weight_decay=0.3)
    assert isinstance(optimizer, MARS)
    found = [(g["rule"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert found == [("lion", 0.5, 0.3), ("adamw", 0.5, 0.3)]


def test_misspelt_name_gets_the_names_and_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"name='mars-adam' must be one of .*mean 'mars-adamw'"):
        create("mars-adam", make_toy())


def test_misspelt_option_gets_the_nearest() -> None:
    with pytest.raises(TypeError, match="no optimizer has the option 'gama'; did you mean 'gamma'"):
        create("mars-adamw", make_toy(), gama=0.1)


def test_options_of_groups_without_a_model_ask_for_it() -> None:
    with pytest.raises(TypeError, match="'lr_embedding' of parameters; give the model"):
        create("mars-adamw", make_params(), lr_embedding=0.1)
    with pytest.raises(TypeError, match="'split' of parameters; give the model"):
        create("mars-m-split", make_params())


def test_value_out_of_range_is_refused_as_ever() -> None:
    with pytest.raises(ValueError, match=r"gamma=-1\.0 must be a finite number of at least 0"):
        create("mars-adamw", make_toy(), gamma=-1.0)


def test_both_are_public_names() -> None:
    assert {"create", "list_optimizers"} <= set(mars_optim.__all__)

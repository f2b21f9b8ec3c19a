"""A state dict of another optimizer, or of a MARS made in another way, is refused on every path."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim.optimizer import Optimizer

from mars_optim import MARS, MARSM, MARSAdamW, MARSLion, param_groups

Groups = list[dict[str, Any]]


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3))


def groups_of(net: nn.Module) -> Groups:
    """As nanoGPT's configure_optimizers makes them: as many as MARS makes of the model."""
    params = list(net.parameters())
    return [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]


def stepped(net: nn.Module, optimizer: Optimizer) -> Optimizer:
    for p in net.parameters():
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    optimizer.step()
    return optimizer


def peer(name: str) -> Callable[[Groups], Optimizer]:
    def make(groups: Groups) -> Optimizer:
        package = pytest.importorskip("pytorch_optimizer", reason="it is not installed")
        return package.load_optimizer(name)(groups)  # type: ignore[no-any-return]

    return make


FOREIGN: dict[str, Callable[[Groups], Optimizer]] = {
    "AdamW": lambda groups: torch.optim.AdamW(groups),
    "SGD": lambda groups: torch.optim.SGD(groups, momentum=0.9),
    "Adafactor": lambda groups: torch.optim.Adafactor(groups),
    "peer's Lion": peer("lion"),
    "peer's MARS": peer("mars"),
    "peer's SOAP": peer("soap"),
}


def by_load(net: nn.Module, to: MARS, source: Optimizer, its: nn.Module) -> None:
    to.load_state_dict(source.state_dict())


def by_torchs_own_method(net: nn.Module, to: MARS, source: Optimizer, its: nn.Module) -> None:
    Optimizer.load_state_dict(to, source.state_dict())


def by_torchs_checkpoint(
    net: nn.Module, to: MARS, source: Optimizer, its: nn.Module, *, flat: bool = False
) -> None:
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    saved = get_optimizer_state_dict(its, source, options=options)
    set_optimizer_state_dict(net, to, saved, options=options)


PATHS = {"load": by_load, "torch's own": by_torchs_own_method, "dcp": by_torchs_checkpoint}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", FOREIGN)
def test_another_optimizers_groups_are_refused_naming_migrate(name: str, path: str) -> None:
    its, net = model(), model()
    source = stepped(its, FOREIGN[name](groups_of(its)))
    optimizer = MARSAdamW(groups_of(net))
    before = copy.deepcopy(optimizer.state_dict()["param_groups"])
    with pytest.raises(ValueError, match=r"no 'rule'.*mars_optim\.migrate\(") as caught:
        PATHS[path](net, optimizer, source, its)
    assert "\n" not in str(caught.value)
    assert optimizer.state_dict()["param_groups"] == before


def test_in_flattened_form_torch_itself_misses_the_rule() -> None:
    its, net = model(), model()
    source = stepped(its, torch.optim.AdamW(groups_of(its)))
    with pytest.raises(KeyError, match=r"param_groups\.0\.weight\.rule"):
        by_torchs_checkpoint(net, MARSAdamW(groups_of(net)), source, its, flat=True)


def test_another_rule_is_refused_in_flattened_form_too() -> None:
    its, net = model(), model()
    source = stepped(its, MARSLion(groups_of(its)))
    with pytest.raises(ValueError, match="rule='lion', this optimizer's has 'adamw'"):
        by_torchs_checkpoint(net, MARSAdamW(groups_of(net)), source, its, flat=True)


def test_torchs_muon_is_refused() -> None:
    its, net = nn.Linear(4, 3, bias=False), nn.Linear(4, 3, bias=False)
    source = stepped(its, torch.optim.Muon(its.parameters()))
    with pytest.raises(ValueError, match=r"no 'rule'.*migrate"):
        MARSM(net.parameters()).load_state_dict(source.state_dict())


def test_a_rule_of_another_package_is_none_of_ours() -> None:
    net = model()
    optimizer = MARSAdamW(net.parameters())
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        group["rule"] = "sgd"
    with pytest.raises(ValueError, match=r"groups have rule='sgd'.*migrate"):
        optimizer.load_state_dict(saved)


# --- of a MARS that is made in another way --------------------------------------------------------

MADE: dict[str, tuple[Callable[[Groups], MARS], str]] = {
    "lion": (MARSLion, r"group 0 .*rule='lion', this optimizer's has 'adamw'"),
    "muon": (MARSM, r"group 0 .*rule='muon', this optimizer's has 'adamw'"),
    "vectors too": (
        lambda groups: MARSAdamW(groups, optimize_1d=True),
        r"group 1 of the state dict corrects vectors \(gamma=0\.025\).*optimize_1d=False",
    ),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("made", MADE)
def test_a_state_dict_does_not_change_the_rule_or_the_split(made: str, path: str) -> None:
    its, net = model(), model()
    make, message = MADE[made]
    source = stepped(its, make(groups_of(its)))
    optimizer = MARSAdamW(groups_of(net))
    before = copy.deepcopy(optimizer.state_dict()["param_groups"])
    with pytest.raises(ValueError, match=message) as caught:
        PATHS[path](net, optimizer, source, its)
    assert "migrate" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert optimizer.state_dict()["param_groups"] == before


def test_vectors_left_to_adamw_do_not_replace_corrected_ones() -> None:
    net = model()
    source = stepped(net, MARSAdamW(groups_of(net)))
    optimizer = MARSAdamW(groups_of(net), optimize_1d=True)
    with pytest.raises(ValueError, match=r"group 1 .*leaves vectors to plain AdamW"):
        optimizer.load_state_dict(source.state_dict())


def test_another_number_of_groups_is_told_by_kind() -> None:
    net = model()
    whole = MARSAdamW(net.parameters(), optimize_1d=True)
    apart = MARSAdamW(net.parameters())
    with pytest.raises(
        ValueError, match=r"number of parameter groups \(1: adamw\).*\(2: matrix, vector\)"
    ):
        apart.load_state_dict(whole.state_dict())
    with pytest.raises(ValueError, match=r"number of parameter groups \(2.*\(1"):
        whole.load_state_dict(apart.state_dict())


def test_numbers_are_the_state_dicts_as_with_torch() -> None:
    net = model()
    source = MARSAdamW(groups_of(net), lr=0.5, gamma=0.01, clip=None)
    optimizer = MARSAdamW(groups_of(net), gamma=0.1, correction="folded")
    optimizer.load_state_dict(source.state_dict())
    group = optimizer.param_groups[0]
    assert (group["lr"], group["gamma"], group["correction"]) == (0.5, 0.01, "approx")


@pytest.mark.parametrize("optimize_1d", [False, True])
def test_a_correction_that_was_turned_off_by_hand_stays_off(optimize_1d: bool) -> None:
    """As the guard's way back in place does it."""
    net = model()
    source = MARSAdamW(groups_of(net), optimize_1d=optimize_1d)
    for group in source.param_groups:
        group.update(gamma=0.0, clip=None)
    optimizer = MARSAdamW(groups_of(net), optimize_1d=optimize_1d)
    optimizer.load_state_dict(source.state_dict())
    assert {group["gamma"] for group in optimizer.param_groups} == {0.0}


def test_kind_and_stacks_that_a_state_dict_does_not_know_stay() -> None:
    net = model()
    groups = param_groups(net, rule="muon")
    groups[0]["stacked"] = True
    optimizer = MARS(groups)
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        for key in ("kind", "why", "stacked"):
            del group[key]
    optimizer.load_state_dict(saved)
    assert [g["kind"] for g in optimizer.param_groups] == ["matrix", "head", "vector"]
    assert [g["stacked"] for g in optimizer.param_groups] == [True, False, False]
    assert "kind" not in saved["param_groups"][0]

"""Checkpoints of hosts that sort parameters: by names, by the host's way, or refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

from mars_optim import MARSAdamW, migrate
from mars_optim.optim.tools.parameter_order import Given, in_order

State = dict[str, Any]


class Block(nn.Module):
    """Names as models have them; ``gain`` is a norm's that is no nn.LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(7, 6)
        self.ln_1 = nn.LayerNorm(6)
        self.fc = nn.Linear(6, 8)
        self.gain = nn.Parameter(torch.ones(8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gain * torch.relu(self.fc(self.ln_1(self.wte(x)))))  # type: ignore[no-any-return]


def model(seed: int = 0) -> Block:
    torch.manual_seed(seed)
    return Block()


def configure_optimizers(
    net: nn.Module, cls: Any = torch.optim.AdamW, **options: Any
) -> torch.optim.Optimizer:
    """As nanoGPT's, but for its printing and ``fused``."""
    param_dict = {pn: p for pn, p in net.named_parameters() if p.requires_grad}
    decay_params = [p for p in param_dict.values() if p.dim() >= 2]
    nodecay_params = [p for p in param_dict.values() if p.dim() < 2]
    groups = [
        {"params": decay_params, "weight_decay": 0.1},
        {"params": nodecay_params, "weight_decay": 0.0},
    ]
    return cls(groups, lr=0.01, betas=(0.9, 0.95), **options)  # type: ignore[no-any-return]


def trainers(net: nn.Module, cls: Any = torch.optim.AdamW) -> torch.optim.Optimizer:
    """As transformers' Trainer sorts Block: ``gain`` is no bias and no norm by name, so decays."""
    apart = [n for n, _ in net.named_parameters() if "bias" in n or "ln_1" in n]
    return cls(  # type: ignore[no-any-return]
        [
            {"params": [p for n, p in net.named_parameters() if n not in apart]},
            {"params": [p for n, p in net.named_parameters() if n in apart], "weight_decay": 0.0},
        ],
        lr=0.01,
    )


def train(net: nn.Module, optimizer: torch.optim.Optimizer, seed: int, steps: int = 4) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randint(7, (16,), generator=generator)
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()


def assert_goes_on(net: nn.Module, source: torch.optim.Optimizer, twin: nn.Module, to: Any) -> None:
    """``to`` is AdamW, or a MARS without a correction: the same steps as ``source``'s."""
    train(net, source, seed=2)
    train(twin, to, seed=2)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-7)


PLAIN: dict[str, Any] = {"gamma": 0.0, "clip": None}
SORTED: dict[str, Any] = {"ndim": configure_optimizers, "trainer": trainers}


@pytest.mark.parametrize("order", SORTED)
@pytest.mark.parametrize("to", ["mars", "adamw"])
@pytest.mark.parametrize("source_is", ["adamw", "mars"])
@pytest.mark.parametrize("from_file", [False, True])
def test_the_hosts_order_is_taken_both_ways(
    order: Any, to: Any, source_is: str, from_file: bool, tmp_path: Path
) -> None:
    net = model()
    cls = torch.optim.AdamW if source_is == "adamw" else lambda *a, **k: MARSAdamW(*a, **k, **PLAIN)
    source = SORTED[order](net, cls)
    train(net, source, seed=1)
    twin = copy.deepcopy(net)
    checkpoint: Any = {"model": twin.state_dict(), "optimizer": source.state_dict(), "iter_num": 4}
    if from_file:
        torch.save(checkpoint, tmp_path / "ckpt.pt")
        checkpoint = tmp_path / "ckpt.pt"
    kept = PLAIN if to == "mars" else {}
    target = migrate(checkpoint, twin, key="optimizer", order=order, to=to, **kept)
    names = [n for g in target.param_groups for n in g["param_names"]]
    assert sorted(names) == sorted(n for n, _ in net.named_parameters())
    assert_goes_on(net, source, twin, target)


def test_nanogpts_checkpoint_says_which_order_fits() -> None:
    net = model()
    source = configure_optimizers(net)
    train(net, source, seed=1)
    with pytest.raises(ValueError, match=r"'gain' has shape .*order='ndim' fits") as caught:
        migrate(source.state_dict(), net.named_parameters())
    assert "\n" not in str(caught.value)
    migrate(source.state_dict(), net.named_parameters(), order="ndim")


def test_trainer_checkpoint_says_its_order_needs_the_model() -> None:
    net = model()
    source = trainers(net)
    train(net, source, seed=1)
    with pytest.raises(ValueError, match=r"groups have \[4, 4\].*give the model.*order='trainer'"):
        migrate(source.state_dict(), net.named_parameters())
    with pytest.raises(ValueError, match="give the model itself as params"):
        migrate(source.state_dict(), net.named_parameters(), order="trainer")
    with pytest.raises(ValueError, match="order='trainer' fits"):
        migrate(source.state_dict(), net)
    with pytest.raises(ValueError, match=r"makes groups of 3 and 5, the checkpoint has \[4, 4\]"):
        migrate(source.state_dict(), net, order="ndim")


def test_patterns_of_undecayed_names_are_an_order() -> None:
    net = model()
    source = trainers(net)
    train(net, source, seed=1)
    twin = copy.deepcopy(net)
    order = ["bias", r"LN_\d"]
    assert_goes_on(
        net,
        source,
        twin,
        migrate(source.state_dict(), twin.named_parameters(), order=order, **PLAIN),
    )
    for wrong, message in ((["norm_9"], "matches no name"), (["("], "not a regular expression")):
        with pytest.raises(ValueError, match=message):
            migrate(source.state_dict(), twin.named_parameters(), order=wrong)
    with pytest.raises(ValueError, match=r"order='dim' must be one of .*did you mean 'ndim'"):
        migrate(source.state_dict(), twin, order="dim")
    with pytest.raises(ValueError, match="not a live optimizer"):
        migrate(source, order="ndim")


def test_undecayed_first_is_known_by_the_shapes() -> None:
    """As timm's param_groups_weight_decay has them."""
    net = model()
    groups = configure_optimizers(net).param_groups[::-1]
    source = torch.optim.AdamW([{**g} for g in groups])
    train(net, source, seed=1)
    twin = copy.deepcopy(net)
    target = migrate(source.state_dict(), twin.named_parameters(), order="ndim", **PLAIN)
    assert_goes_on(net, source, twin, target)


class Square(nn.Module):
    """A model whose shapes tell nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Parameter(torch.ones(4, 4))
        self.a = nn.Parameter(torch.ones(4, 4))


def test_two_readings_that_fit_are_refused_rather_than_guessed() -> None:
    net = Square()
    source = torch.optim.AdamW(
        [{"params": [net.a]}, {"params": [net.norm], "weight_decay": 0.0}], lr=0.1
    )
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    source.step()
    saved = source.state_dict()
    with pytest.raises(ValueError, match=r"both as given and by order='trainer'.*order='given'"):
        migrate(saved, net)
    with pytest.raises(ValueError, match=r"order=\['norm'\] can be read in 2 ways"):
        migrate(saved, net, order=["norm"])
    as_given = migrate(saved, [("a", net.a), ("norm", net.norm)], order="given")
    assert as_given.param_groups[0]["param_names"] == ["a"]


def test_a_checkpoint_without_moments_in_two_groups_is_ambiguous() -> None:
    net = model()
    saved = configure_optimizers(net).state_dict()
    with pytest.raises(ValueError, match="both as given and by order='ndim'"):
        migrate(saved, net.named_parameters())
    assert migrate(saved, net, order="ndim").param_groups[0]["weight_decay"] == 0.1


# --- by names -------------------------------------------------------------------------------------


def named_source(net: nn.Module) -> torch.optim.Optimizer:
    named = list(net.named_parameters())
    groups = [
        {"params": [(n, p) for n, p in named if p.ndim >= 2][::-1], "weight_decay": 0.1},
        {"params": [(n, p) for n, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    source = torch.optim.AdamW(groups, lr=0.01)
    train(net, source, seed=1)
    return source


def by_dcp(net: nn.Module, source: torch.optim.Optimizer, *, flat: bool) -> State:
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    return dict(get_optimizer_state_dict(net, source, options=options))


NAMED: dict[str, Any] = {
    "param_names": lambda net, source: source.state_dict(),
    "dcp": lambda net, source: by_dcp(net, source, flat=False),
    "dcp, flattened": lambda net, source: by_dcp(net, source, flat=True),
}


@pytest.mark.parametrize("form", NAMED)
@pytest.mark.parametrize("to", ["mars", "adamw"])
@pytest.mark.parametrize("whole", [False, True])
def test_names_in_the_checkpoint_decide(form: str, to: Any, whole: bool) -> None:
    net = model()
    source = named_source(net)
    twin = copy.deepcopy(net)
    params: Any = twin if whole else reversed(list(twin.named_parameters()))
    kept = PLAIN if to == "mars" else {}
    target = migrate({"opt": NAMED[form](net, source)}, params, key="opt", to=to, **kept)
    assert {g["weight_decay"]: len(g["params"]) for g in target.param_groups} == {0.1: 3, 0.0: 5}
    assert_goes_on(net, source, twin, target)


def test_names_of_compiled_and_wrapped_models_match_plain_names() -> None:
    net = model()
    source = named_source(net)
    saved = copy.deepcopy(source.state_dict())
    for group in saved["param_groups"]:
        group["param_names"] = [f"module._orig_mod.{n}" for n in group["param_names"]]
    twin = copy.deepcopy(net)
    assert_goes_on(net, source, twin, migrate(saved, twin, **PLAIN))


def test_names_that_only_one_side_has_are_named() -> None:
    net = model()
    saved = named_source(net).state_dict()
    renamed = [(n.replace("fc", "up"), p) for n, p in net.named_parameters()]
    with pytest.raises(ValueError, match=r"only params has 'up\.weight' and only .* has 'fc\.wei"):
        migrate(saved, renamed)
    short = copy.deepcopy(saved)
    short["param_groups"][1]["params"].pop()
    short["param_groups"][1]["param_names"].pop()
    with pytest.raises(ValueError, match=r"only params has 'head\.bias'\."):
        migrate(short, net)
    with pytest.raises(ValueError, match="has names, which decide without order"):
        migrate(saved, net.named_parameters(), order="ndim")
    alike = nn.ModuleDict({n: nn.Linear(2, 2, bias=False) for n in "ab"})
    saved = torch.optim.AdamW([*alike.named_parameters()][::-1]).state_dict()
    with pytest.raises(ValueError, match=r"'a\.weight' stands where .* has 'b\.weight'"):
        migrate(saved, alike, order="given")


def test_frozen_parameters_need_not_be_in_the_checkpoint() -> None:
    net = model()
    net.wte.requires_grad_(False)
    for source in (
        torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.01),
        torch.optim.AdamW([(n, p) for n, p in net.named_parameters() if p.requires_grad], lr=0.01),
    ):
        train(net, source, seed=1)
        assert len(migrate(source.state_dict(), net.named_parameters()).state) == 7


def test_a_tied_tensor_is_found_under_its_other_name() -> None:
    net = nn.ModuleDict({"wte": nn.Embedding(7, 6), "head": nn.Linear(6, 7, bias=False)})
    net["head"].weight = net["wte"].weight
    source = torch.optim.AdamW([("head.weight", net["head"].weight)])
    target = migrate(source.state_dict(), net)
    assert target.param_groups[0]["param_names"] == ["wte.weight"]


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(5)), st.lists(st.integers(0, 2), min_size=5, max_size=5))
def test_by_names_every_sorting_is_found(order: list[int], group_of: list[int]) -> None:
    """All tensors have one shape, so that names alone can tell."""
    named = [(f"layers.{i}.weight", nn.Parameter(torch.full((2, 2), float(i)))) for i in range(5)]
    parts = [[named[i] for i in order if group_of[i] == g] for g in range(3)]
    source = torch.optim.AdamW([{"params": part} for part in parts if part])
    found = in_order(source.state_dict(), Given.of(named), None)
    held = [p for g in source.param_groups for p in g["params"]]
    assert all(p is q for (_, p), q in zip(found, held, strict=True))

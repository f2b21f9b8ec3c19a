"""Whose state migrate takes, whose it refuses, and what of the host's stays."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from mars_optim import MARSAdamW, MARSLion, migrate, release_gradients, variance_reduce
from tests.support.migrations import adamw, model, train

REFUSED: dict[str, tuple[Any, str]] = {
    "Adam, L2": (lambda p: torch.optim.Adam(p, weight_decay=0.1), r"weight_decay=0\.1 inside"),
    "RAdam": (lambda p: torch.optim.RAdam(p), "RAdam"),
    "RAdam, decoupled": (
        lambda p: torch.optim.RAdam(p, weight_decay=0.1, decoupled_weight_decay=True),
        "RAdam",
    ),
    "NAdam": (lambda p: torch.optim.NAdam(p), "NAdam"),
    "NAdam, decoupled": (
        lambda p: torch.optim.NAdam(p, weight_decay=0.1, decoupled_weight_decay=True),
        "NAdam",
    ),
    "Adamax": (lambda p: torch.optim.Adamax(p), "Adamax|exp_avg_sq"),
    "lion": (lambda p: MARSLion(p, optimize_1d=True), "rule='lion' keeps no second moment"),
}


@pytest.mark.parametrize("to", ["mars", "adamw"])
@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_go_on_is_refused_in_one_line(name: str, live: bool, to: Any) -> None:
    net = model()
    make, message = REFUSED[name]
    source = make(list(net.parameters()))
    train(net, source, seed=1, steps=1)
    given: Any = (source,) if live else (source.state_dict(), net.parameters())
    with pytest.raises(ValueError, match=message) as caught:
        migrate(*given, to=to)
    assert "\n" not in str(caught.value)


CONTINUED: dict[str, Any] = {
    "AdamW": lambda p: torch.optim.AdamW(p, weight_decay=0.1),
    "Adam without decay": lambda p: torch.optim.Adam(p),
    "Adam, decoupled": lambda p: torch.optim.Adam(p, weight_decay=0.1, decoupled_weight_decay=True),
    "maximize": lambda p: torch.optim.AdamW(p, maximize=True),
    "amsgrad, maximize": lambda p: torch.optim.Adam(p, amsgrad=True, maximize=True),
    "tensor lr": lambda p: torch.optim.AdamW(p, lr=torch.tensor(1e-3)),
}


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("name", CONTINUED)
def test_what_goes_on_goes_on_as_it_was(name: str, live: bool) -> None:
    net = model()
    source = CONTINUED[name](list(net.parameters()))
    train(net, source, seed=1)
    twin, other = copy.deepcopy((net, source))
    if live:
        target = migrate(source, gamma=0.0, clip=None)
    else:
        target = migrate(source.state_dict(), net.parameters(), gamma=0.0, clip=None)
    train(net, target, seed=2)
    train(twin, other, seed=2)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def another_with_adams_state(params: Any) -> torch.optim.Optimizer:
    class Trusting(torch.optim.Optimizer):
        def step(self, closure: Any = None) -> None: ...

    return Trusting(params, {"lr": 0.1, "betas": (0.9, 0.9), "eps": 1e-8, "weight_decay": 0.0})


def test_an_optimizer_that_nobody_knows_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match=r"source is a Trusting.*give its state_dict\(\)"):
        migrate(another_with_adams_state(model().parameters()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": {"z": torch.zeros(8, 6)}}, "keeps 'z' for each parameter"),
        ({"group": {"bias_correction": False}}, "bias_correction=False"),
        ({"group": {"trust_clip": False}}, "LAMB"),
        ({"group": {"differentiable": True}}, "differentiable=True"),
        ({"group": {"amsgrad": True}}, "no max_exp_avg_sq"),
        ({"state": {"step": -3}}, r"step=-3 must be a finite number"),
        ({"state": {"step": "x"}}, r"step='x' must be a number"),
    ],
)
def test_a_state_dict_that_tells_of_another_method_is_refused(
    change: dict[str, Any], message: str
) -> None:
    net = model()
    source = torch.optim.AdamW(net.parameters())
    train(net, source, seed=1, steps=1)
    saved = copy.deepcopy(source.state_dict())
    saved["state"][0] |= change.get("state", {})
    saved["param_groups"][0] |= change.get("group", {})
    with pytest.raises(ValueError, match=message):
        migrate(saved, net.parameters())


def test_variance_reduced_adamw_is_refused_until_it_is_plain() -> None:
    source = adamw(model())
    handle = variance_reduce(source)
    with pytest.raises(ValueError, match=r"under variance_reduce: call remove\(\)"):
        migrate(source)
    plain = migrate(source, to="adamw")  # the correction is dropped, as MARS's is
    assert not any(key.startswith("mars_") for key in plain.param_groups[0])
    handle.remove()
    migrate(source)


@pytest.mark.parametrize("to", ["mars", "adamw"])
def test_released_gradients_are_refused_until_they_are_kept(to: Any) -> None:
    source = MARSAdamW(model().parameters())
    handle = release_gradients(source)
    with pytest.raises(ValueError, match=r"under release_gradients.*call remove\(\)"):
        migrate(source, to=to)
    handle.remove()
    migrate(source, to=to)


@pytest.mark.parametrize("live", [True, False])
def test_moments_of_another_dtype_become_what_adamw_loads(live: bool) -> None:
    dtype = torch.bfloat16 if live else torch.float32
    net = model().to(torch.bfloat16)
    source: Any = MARSAdamW(net.parameters(), state_dtype=torch.float32)
    if not live:  # a checkpoint in bfloat16 for a model in float32
        source = torch.optim.AdamW(net.parameters())
    net(torch.ones(4, 6, dtype=torch.bfloat16)).square().mean().backward()
    source.step()
    net = net.to(dtype)
    given: Any = (source,) if live else (source.state_dict(), net)
    target = migrate(*given, to="adamw")
    before = [p.detach().clone() for p in net.parameters()]
    net(torch.ones(4, 6, dtype=dtype)).square().mean().backward()
    target.step()
    assert not all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    kept = [v for state in target.state.values() for k, v in state.items() if k != "step"]
    assert {v.dtype for v in kept} == {dtype}


def test_an_optimizer_in_a_hosts_wrapper_is_taken_out() -> None:
    class Wrapped(torch.optim.Optimizer):
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

    net = model()
    source = adamw(net)
    train(net, source, seed=1)
    target = migrate(Wrapped(source))
    assert len(target.state) == len(source.state)


@pytest.mark.parametrize("to", ["mars", "adamw"])
@pytest.mark.parametrize("live", [True, False])
def test_keys_of_the_host_are_kept(live: bool, to: Any) -> None:
    net = model()
    named = list(net.named_parameters())  # one group, which MARS splits
    source: Any = torch.optim.AdamW(named) if to == "mars" else MARSAdamW(named)
    for group in source.param_groups:
        group |= {"initial_lr": 0.5, "lr_scale": 0.25, "weight_decays": 2, "note": {"a": [1]}}
    train(net, source, seed=1, steps=1)
    of_name = dict(named)
    in_order = [(n, of_name[n]) for g in source.param_groups for n in g["param_names"]]
    given: Any = (source,) if live else (source.state_dict(), in_order)
    target = migrate(*given, to=to)
    names = [n for g in target.param_groups for n in g["param_names"]]
    assert sorted(names) == sorted(n for n, _ in named)
    for group in target.param_groups:
        assert (group["initial_lr"], group["lr_scale"], group["weight_decays"]) == (0.5, 0.25, 2)
        assert group["note"] == {"a": [1]}
        assert group["note"] is not source.param_groups[0]["note"]
        assert "source_group" not in group
    own = torch.optim.AdamW(net.parameters()) if to == "adamw" else MARSAdamW(net.parameters())
    hosts = {"initial_lr", "lr_scale", "weight_decays", "note", "param_names", "betas_1d"}
    assert target.param_groups[0].keys() - own.param_groups[0].keys() <= hosts


SCHEDULES: dict[str, Any] = {
    "LambdaLR": lambda o, last: torch.optim.lr_scheduler.LambdaLR(o, lambda t: 0.9**t, last),
    "CosineAnnealingLR": lambda o, last: torch.optim.lr_scheduler.CosineAnnealingLR(
        o, 20, last_epoch=last
    ),
    "OneCycleLR": lambda o, last: torch.optim.lr_scheduler.OneCycleLR(
        o, max_lr=0.1, total_steps=20, last_epoch=last
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_goes_on_across_the_switch_at_the_same_rates(name: str) -> None:
    net = model()
    source: Any = torch.optim.AdamW(net.parameters(), lr=0.01)
    twin = torch.optim.AdamW(model().parameters(), lr=0.01)
    schedule, undisturbed = (SCHEDULES[name](o, -1) for o in (source, twin))
    rates: list[float] = []
    wanted: list[float] = []
    for t in range(15):
        if t in (5, 10):  # into MARS, and back
            source = migrate(source, to="mars" if t == 5 else "adamw")
            schedule = SCHEDULES[name](source, schedule.last_epoch - 1)
        train(net, source, seed=t, steps=1)
        twin.step()
        rates += {group["lr"] for group in source.param_groups}
        wanted.append(twin.param_groups[0]["lr"])
        schedule.step()
        undisturbed.step()
    assert rates == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_ratio_of_lr_is_in_the_rates_of_schedules_too(name: str) -> None:
    net = model()
    mars = MARSAdamW(net.parameters(), lr=0.01, lr_1d_ratio=0.1)
    schedule = SCHEDULES[name](mars, -1)
    for t in range(5):
        train(net, mars, seed=t, steps=1)
        schedule.step()
    plain = migrate(mars, to="adamw")
    other = SCHEDULES[name](plain, schedule.last_epoch - 1)
    for _ in range(3):
        acts = [group["lr"] * group["lr_ratio"] for group in mars.param_groups]
        assert [group["lr"] for group in plain.param_groups] == pytest.approx(acts)
        for optimizer, its in ((mars, schedule), (plain, other)):
            train(net, optimizer, seed=9, steps=1)
            its.step()

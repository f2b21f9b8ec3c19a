"""From AdamW into MARS and back, with moments, from objects and from files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim import MARS, Baseline, GuardSettings, MARSAdamW, MARSLion, migrate, variance_reduce
from mars_optim.experiment.tasks import GPT
from mars_optim.guard import Detector
from tests.support.paths import ROOT


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3))


def groups_of(net: nn.Module) -> list[dict[str, Any]]:
    named = list(net.named_parameters())
    return [
        {"params": [(n, p) for n, p in named if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [(n, p) for n, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]


def adamw(net: nn.Module, **options: Any) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups_of(net), lr=0.01, betas=(0.9, 0.95), **options)


def train(net: nn.Module, optimizer: torch.optim.Optimizer, seed: int, steps: int = 5) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(16, 6, generator=generator)
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()


def weights(net: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-7)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_with_gamma_zero_and_no_clip_it_goes_on_as_adamw_would(amsgrad: bool) -> None:
    net = model()
    source = adamw(net, amsgrad=amsgrad)
    train(net, source, seed=1)
    twin, other = copy.deepcopy((net, source))
    mars = migrate(source, gamma=0.0, clip=None)
    assert isinstance(mars, MARS)
    train(net, mars, seed=2)
    train(twin, other, seed=2)
    assert_same(net, twin)


def test_migrate_to_auto_gamma_keeps_adamw_second_moment() -> None:
    net = model()
    source = adamw(net)
    train(net, source, seed=1)
    twin, other = copy.deepcopy((net, source))
    mars = migrate(source, gamma="auto")
    train(net, mars, seed=2, steps=30)
    matrices = [g for g in mars.param_groups if g["gamma"]]
    assert {(g["correction"], g["clip"]) for g in matrices} == {("folded", None)}
    assert all(g["gamma_now"] != 0.025 for g in matrices)
    mars = migrate(other, gamma="auto")
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(3))
    twin(x).square().mean().backward()
    before = {p: other.state[p]["exp_avg_sq"] for p in twin.parameters()}
    mars.step()
    for p in twin.parameters():
        expected = 0.95 * before[p] + 0.05 * p.grad**2
        torch.testing.assert_close(mars.state[p]["exp_avg_sq"], expected)


def test_there_and_back_again_changes_nothing() -> None:
    net = model()
    source = adamw(net)
    train(net, source, seed=1)
    back = migrate(migrate(source), to="adamw")
    assert type(back) is torch.optim.AdamW
    for param, state in source.state.items():
        for key, value in state.items():
            assert torch.equal(back.state[param][key], value)
            assert back.state[param][key].data_ptr() != value.data_ptr()
    twin, other = copy.deepcopy((net, source))
    train(net, back, seed=2)
    train(twin, other, seed=2)
    assert_same(net, twin)


def test_migrated_groups_keep_settings_and_only_correct_matrices() -> None:
    net = model()
    source = adamw(net)
    train(net, source, seed=1)
    source.param_groups[0]["lr"] = 0.003
    mars = migrate(source, gamma=0.05)
    matrices, vectors = mars.param_groups
    assert (matrices["lr"], matrices["weight_decay"], matrices["gamma"]) == (0.003, 0.1, 0.05)
    assert (vectors["lr"], vectors["weight_decay"], vectors["gamma"]) == (0.01, 0.0, 0.0)
    assert matrices["betas"] == vectors["betas"] == (0.9, 0.95)
    assert matrices["clip"] == 1.0
    assert vectors["clip"] is None
    assert matrices["param_names"] == ["0.weight", "2.weight"]


@pytest.mark.parametrize("key", [None, "optimizer", "training.optimizer"])
def test_a_checkpoint_file_is_read_like_the_live_object(tmp_path: Path, key: str | None) -> None:
    net = model()
    source = adamw(net)
    train(net, source, seed=1)
    data: Any = source.state_dict()
    for part in reversed(key.split(".") if key else []):
        data = {part: data, "epoch": 3}
    torch.save(data, tmp_path / "checkpoint.pt")
    twin = copy.deepcopy(net)
    named = dict(twin.named_parameters())
    order = [n for g in groups_of(twin) for n, _ in g["params"]]
    mars = migrate(tmp_path / "checkpoint.pt", [(n, named[n]) for n in order], key=key)
    train(twin, mars, seed=2)
    train(net, migrate(source), seed=2)
    assert_same(net, twin)


def test_parameters_in_another_order_are_matched_by_name() -> None:
    net = model()
    source = adamw(net)
    train(net, source, seed=1)
    target = migrate(source.state_dict(), net.named_parameters())
    for group, other in zip(target.param_groups, source.param_groups, strict=True):
        assert group["param_names"] == other["param_names"]
        assert all(p is q for p, q in zip(group["params"], other["params"], strict=True))
    for param, state in source.state.items():
        assert torch.equal(target.state[param]["exp_avg"], state["exp_avg"])


def test_without_names_the_shapes_are_compared() -> None:
    net = model()
    source = torch.optim.AdamW(net.parameters())
    train(net, source, seed=1)
    with pytest.raises(ValueError, match=r"parameter 0 has shape \(3,\), where .* has \(8, 6\)"):
        migrate(source.state_dict(), list(net.parameters())[::-1])
    with pytest.raises(ValueError, match="params has 5 tensors, the checkpoint 6"):
        migrate(source.state_dict(), list(net.parameters())[:5])


def test_a_source_that_was_never_stepped_gives_a_fresh_optimizer() -> None:
    net, twin = model(), model()
    train(net, migrate(adamw(net)), seed=2)
    fresh = MARSAdamW(groups_of(twin), lr=0.01, betas=(0.9, 0.95), betas_1d=(0.9, 0.95))
    train(twin, fresh, seed=2)
    assert_same(net, twin)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (lambda net: torch.optim.SGD(net.parameters(), momentum=0.9), {}, "no .*exp_avg"),
        (lambda net: MARSLion(net.parameters()), {"to": "adamw"}, "rule='lion' keeps no second"),
        (lambda net: adamw(net), {"to": "adam"}, "to='adam' must be one of .*'adamw'"),
        (lambda net: adamw(net), {"params": []}, "not a live optimizer"),
        (lambda net: "nowhere.pt", {"params": []}, r"'nowhere\.pt' cannot be read"),
        (lambda net: {"model": {}}, {"params": []}, "no optimizer's state dict, but model"),
        (lambda net: {"a": 1}, {"params": [], "key": "optimizer"}, "key='optimizer' is not in"),
        (lambda net: {"a": 1}, {}, "params is needed"),
    ],
)
def test_a_mistake_is_named_with_the_way_out(
    source: Any, options: dict[str, Any], message: str
) -> None:
    net = model()
    made = source(net)
    if isinstance(made, torch.optim.Optimizer):
        train(net, made, seed=1, steps=1)
    with pytest.raises(ValueError, match=message):
        migrate(made, **options)


def train_gpt(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    """A small GPT on the text of the licence; each step has its own batch."""
    text = torch.tensor(list((ROOT / "LICENSE").read_bytes()))
    losses = []
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        starts = torch.randint(len(text) - 33, (16,), generator=generator)
        batch = text[starts[:, None] + torch.arange(33)]
        loss = nn.functional.cross_entropy(net(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.slow_but_one
@pytest.mark.parametrize("seed", range(3))
def test_the_switch_makes_no_loss_spike_in_a_real_run(seed: int) -> None:
    """By the guard's own test, which sees the spike of a switch without moments."""
    torch.manual_seed(seed)
    net = GPT(vocabulary=256, context=32, layers=1, width=32, heads=2)
    source = torch.optim.AdamW(net.parameters(), lr=3e-3, betas=(0.9, 0.95))
    first = 1000 * seed
    before = train_gpt(net, source, range(first, first + 250))
    after = range(first + 250, first + 300)

    def alarms(net: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[set[str], list[float]]:
        losses = train_gpt(net, optimizer, after)
        detector = Detector(GuardSettings(), Baseline(before[-150:]))
        on = [alarm for i, loss in enumerate(losses) for alarm in detector.feed(i, loss)]
        return {alarm.signal for alarm in on}, losses

    twin, continued = copy.deepcopy((net, source))
    careless = copy.deepcopy(net)
    seen, losses = alarms(net, migrate(source))
    assert seen == set()
    _, as_it_was = alarms(twin, continued)
    gaps = [a - b for a, b in zip(losses, as_it_was, strict=True)]
    assert max(gaps) < 0.25 * (max(before[-40:]) - min(before[-40:]))  # and batch by batch
    assert sum(losses[-25:]) < sum(before[-25:])
    seen, _ = alarms(careless, MARSAdamW(careless.parameters(), lr=0.1))
    assert "loss" in seen


# --- what goes on, and what would only seem to ----------------------------------------------------

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

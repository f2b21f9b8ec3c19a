"""From AdamW into MARS and back, with moments, from objects and from files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mars_optim import MARS, Baseline, GuardSettings, MARSAdamW, MARSLion, migrate
from mars_optim.experiment.tasks import GPT
from mars_optim.guard import Detector
from tests.support.migrations import adamw, assert_same, groups_of, model, train
from tests.support.paths import ROOT


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
    assert all(g["gamma_now"] != g["gamma"] for g in matrices)
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


@pytest.mark.slow
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

"""A guard or a recorder refuses when it is made whatever it cannot work with, in a sentence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mars_optim import (
    BaselineRecorder,
    Guard,
    GuardSettings,
    MARSAdamW,
    release_gradients,
    variance_reduce,
)
from tests.support.run_to_guard import HISTORY, QUICK, Run, events


class Host(torch.optim.Optimizer):
    """As Accelerate wraps an optimizer: without what the base class sets up."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)  # type: ignore[assignment]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.optimizer.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: torch.optim.Adam(p, weight_decay=0.1), "Adam with weight_decay=0.1 inside"),
        (torch.optim.NAdam, "NAdam"),
        (torch.optim.Adamax, "Adamax"),
    ],
)
def test_an_optimizer_that_no_adamw_goes_on_from_is_refused(make: Any, message: str) -> None:
    net = nn.Linear(2, 2)
    optimizer = make(net.parameters())
    variance_reduce(optimizer)
    with pytest.raises(ValueError, match=f"cannot go back to AdamW from optimizer.*{message}"):
        Guard(net, optimizer, baseline=HISTORY)


def test_released_gradients_are_refused_but_in_place() -> None:
    run = Run()
    handle = release_gradients(run.optimizer)  # type: ignore[arg-type]
    options: dict[str, Any] = dict(baseline=HISTORY, settings=QUICK)
    with pytest.raises(ValueError, match=r"release_gradients.*set in_place=True, or call remove"):
        Guard(run.net, run.optimizer, **options)
    guard = Guard(run.net, run.optimizer, in_place=True, **options)
    run.guarded(guard, {}, steps=22)
    twin = Run()
    back = run.guarded(guard, {23: math.nan}, steps=60)
    assert back is not None
    twin.train(twin.optimizer, back.step)
    for group in twin.optimizer.param_groups:
        group.update(gamma=0.0, clip=None)
    run.step, twin.step = 50, 50
    run.train(back.optimizer, 5)
    twin.train(twin.optimizer, 5)
    for mine, other in zip(run.weights(), twin.weights(), strict=True):
        torch.testing.assert_close(mine, other)
    handle.remove()
    Guard(run.net, run.optimizer, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(settings={"every": 1}), "must be a GuardSettings"),
        (dict(baseline=None), "baseline=None must be a Baseline"),
        (dict(snapshots=None), "snapshots=None must be 'memory' or the path"),
        (dict(step=1.5), r"step=1\.5 must be a whole number"),
        (
            dict(settings=GuardSettings(window=140, patience=70)),
            "holds 120 losses; at least 139 are needed with patience = 70",
        ),
    ],
)
def test_an_argument_of_another_kind_is_named(options: Any, message: str) -> None:
    run = Run()
    with pytest.raises(ValueError, match=message):
        Guard(run.net, run.optimizer, **{"baseline": HISTORY, **options})


def test_paths_that_cannot_be_written_are_refused_at_once(tmp_path: Path) -> None:
    run, file = Run(), tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match=r"log=.* cannot be written"):
        Guard(run.net, run.optimizer, baseline=HISTORY, log=tmp_path)
    with pytest.raises(ValueError, match=r"snapshots=.* cannot be made a folder"):
        Guard(run.net, run.optimizer, baseline=HISTORY, snapshots=file)


def test_a_log_that_can_be_written_no_more_costs_its_lines(tmp_path: Path) -> None:
    run, log = Run(), tmp_path / "log" / "guard.jsonl"
    guard = Guard(run.net, run.optimizer, baseline=HISTORY, settings=QUICK, log=log)
    run.guarded(guard, {}, steps=19)
    kept = events(log)
    log.rename(tmp_path / "guard.jsonl")
    log.mkdir()
    with pytest.warns(UserWarning, match=r"guard\.jsonl cannot be written"):
        back = run.guarded(guard, {21: math.nan}, steps=60)
    assert back is not None
    assert events(tmp_path / "guard.jsonl") == kept


def test_parameters_that_the_model_lacks_are_refused() -> None:
    net, head = nn.Linear(2, 2), nn.Linear(2, 1)
    optimizer = MARSAdamW([*net.parameters(), *head.parameters()])
    with pytest.raises(ValueError, match=r"has 2 of its 4 parameters from outside model"):
        Guard(net, optimizer, baseline=HISTORY)
    Guard(nn.ModuleList([net, head]), optimizer, baseline=HISTORY)


@pytest.mark.parametrize("loss", [None, [2.0], "2.0", torch.tensor(2.0 + 5.0j)])
def test_a_loss_that_is_no_number_is_refused_at_its_step(loss: Any) -> None:
    run = Run()
    guard = Guard(run.net, run.optimizer, baseline=HISTORY)
    with pytest.raises(ValueError, match=r"loss.* number"):
        guard.watch(loss=loss)
    assert guard.watch(loss=np.float32(1.0)) is None  # type: ignore[arg-type]


def test_an_empty_group_is_no_hindrance() -> None:
    net = nn.Linear(4, 4)
    groups: list[dict[str, Any]] = [{"params": []}, {"params": list(net.parameters())}]
    adamw = torch.optim.AdamW(groups)
    recorder = BaselineRecorder(adamw, every=1)
    mars = MARSAdamW(groups, lr=1e-3)
    guard = Guard(net, mars, adamw=adamw, baseline=HISTORY, settings=QUICK)
    for optimizer, watch in ((adamw, recorder.watch), (mars, guard.watch)):
        net(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        watch(loss=1.0)
    watch(loss=math.nan)
    assert guard.rolled_back
    with pytest.raises(ValueError, match="optimizer holds no parameters"):
        BaselineRecorder(torch.optim.AdamW([{"params": []}]))


@pytest.mark.parametrize("in_place", [False, True])
def test_an_optimizer_in_a_hosts_wrapper_is_guarded_inside(in_place: bool) -> None:
    run = Run()
    host = Host(run.optimizer)
    BaselineRecorder(Host(run.adamw)).close()
    guard = Guard(
        run.net, host, adamw=run.adamw, baseline=HISTORY, settings=QUICK, in_place=in_place, step=10
    )
    back = run.guarded(guard, {21: math.nan}, steps=60)
    assert back is not None
    kind = Host if in_place else torch.optim.AdamW
    assert type(back.optimizer) is kind
    run.train(back.optimizer, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(every=2.5), r"every=2\.5 must be a whole number"),
        (dict(every=0), "every=0 must be a whole number of at least 1"),
        (dict(keep=-1), "keep=-1 must be a whole number of at least 100"),
        (dict(clip=math.nan), "clip=nan must be a finite number above 0"),
    ],
)
def test_a_recorder_of_nothing_is_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BaselineRecorder(Run().adamw, **options)

"""The guard in a real loop: it looks on, changes nothing, warns, and refuses what it cannot do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mars_optim import MARS, Guard, GuardSettings, MARSAdamW, MARSLion
from mars_optim.guard.readings import Readings, clip_share
from tests.support.run_to_guard import HISTORY, QUICK, Run, equal, events


def test_spike_after_switch_warns_and_rolls_back_only_if_lasting(
    tmp_path: Path,
) -> None:
    settled = GuardSettings(every=1, window=20, patience=4, settle=10, checkpoint_every=5)
    for end, expected in ((17, None), (60, 21)):  # it ends, or it lasts
        run, log = Run(), tmp_path / f"{end}.jsonl"
        guard = Guard(run.net, run.optimizer, baseline=HISTORY, settings=settled, step=10, log=log)
        back = run.guarded(guard, {11: 5.0, end: 1.0}, steps=59)
        assert (back.detected if back else None) == expected
        assert events(log)[1] | {"time": 0} == {
            "time": 0,
            "event": "warn",
            "step": 13,
            "signal": "loss",
            "value": 5.0,
            "limit": events(log)[1]["limit"],
            "since": 11,
        }


def test_a_healthy_run_is_the_same_with_and_without_a_guard(tmp_path: Path) -> None:
    run, twin = Run(), Run()
    guard = Guard(
        run.net, run.optimizer, baseline=HISTORY, settings=QUICK, step=10, snapshots=tmp_path
    )
    assert run.guarded(guard, {}, steps=60) is None
    twin.train(twin.optimizer, 50)
    assert equal(run.weights(), twin.weights())
    assert len(list(tmp_path.iterdir())) == QUICK.keep


def test_signals_that_were_not_agreed_on_warn_and_clear(tmp_path: Path) -> None:
    run = Run()
    calm = GuardSettings(every=1, window=10, patience=4, settle=0, rollback_on=())
    log = tmp_path / "log" / "guard.jsonl"
    guard = Guard(run.net, run.optimizer, baseline=HISTORY, settings=calm, log=log)
    for step in range(30):
        run.train(run.optimizer)
        slow = 9.0 if 10 <= step < 20 else 1.0
        assert guard.watch(loss=1.0, grad_norm=1.0, step_seconds=slow) is None
    assert [(e["event"], e["step"], e.get("signal")) for e in events(log)[1:]] == [
        ("warn", 13, "step_seconds"),
        ("clear", 22, "step_seconds"),
    ]


def test_the_clip_share_is_that_of_the_step_that_follows() -> None:
    run = Run(clip=1e-3)
    guard = Guard(run.net, run.optimizer, baseline=HISTORY, settings=QUICK)
    seen: list[float | None] = []
    feed = guard._detector.feed

    def spy(step: int, loss: float, **values: Any) -> Any:
        seen.append(values["clip_share"])
        return feed(step, loss, **values)

    guard._detector.feed = spy  # type: ignore[method-assign]
    run.guarded(guard, {}, steps=14)
    assert seen == [None, 1.0, None, 1.0]  # at every second step: all of its matrices


def test_clip_share_is_by_the_gamma_in_force_not_the_first_one() -> None:
    """gamma follows lr down to a thousandth: then c_t is g_t, whose norm is within the clip."""
    p = nn.Parameter(torch.zeros(2, 2))
    optimizer = MARS([p], lr=1.0, gamma=0.5, gamma_schedule="lr", clip=2.0)
    shares = []
    for lr, sign in ((1.0, 1.0), (1e-3, -1.0)):
        optimizer.param_groups[0]["lr"] = lr
        p.grad = sign * torch.full((2, 2), 0.9)
        optimizer.step()
        p.grad = -p.grad
        share = clip_share(optimizer)
        assert share is not None
        shares.append(float(share))
    assert shares == [1.0, 0.0]


def test_scaled_or_missing_gradients_are_not_measured() -> None:
    run = Run(clip=1e-3)
    readings = Readings(run.optimizer, every=1)
    for scaled, closure, expected in ((False, None, 1.0), (True, None, None), (False, 1, None)):
        run.net(torch.ones(4, 4)).sum().backward()
        run.optimizer.grad_scale = torch.tensor(2.0) if scaled else None  # type: ignore[attr-defined]
        if closure:
            run.optimizer.step(lambda: 1.0)
        else:
            readings._before_step(run.optimizer, (), {})
        (reading,) = readings.add(1.0, None, 1.0) or ()
        assert reading.clip_share == expected


def test_the_host_is_told(caplog: pytest.LogCaptureFixture) -> None:
    run, told = Run(), []
    guard = Guard(run.net, run.optimizer, baseline=HISTORY, settings=QUICK, on_rollback=told.append)
    back = run.guarded(guard, {20: math.nan}, steps=60)
    assert told == [back]
    assert [r.message.split(":")[0] for r in caplog.records if r.levelname == "WARNING"] == [
        "warn",
        "rollback",
    ]


@pytest.mark.parametrize(
    ("optimizer", "options", "message"),
    [
        (lambda net: MARSLion(net.parameters()), {}, "rule 'lion'.* keeps no second moment"),
        (lambda net: torch.optim.SGD(net.parameters(), lr=0.1), {}, "no second moment"),
        (
            lambda net: torch.optim.AdamW(net.parameters()),
            {"in_place": True},
            "no gamma to turn off",
        ),
        (
            lambda net: MARSAdamW(net.parameters()),
            {"adamw": [{"params": [], "lr": 1.0}]},
            "does not hold all parameters",
        ),
        (lambda net: MARSAdamW(net.parameters()), {"baseline": "nowhere.json"}, "does not exist"),
    ],
)
def test_what_cannot_be_guarded_is_refused_before_the_first_step(
    optimizer: Any, options: dict[str, Any], message: str
) -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=message):
        Guard(net, optimizer(net), **{"baseline": HISTORY, **options})


def test_a_loss_of_many_numbers_is_refused_by_its_shape() -> None:
    run = Run()
    guard = Guard(run.net, run.optimizer, baseline=HISTORY)
    with pytest.raises(ValueError, match=r"loss has shape \(16,\); one number is needed"):
        guard.watch(loss=torch.ones(16))


def test_groups_that_adamw_treated_differently_must_stay_apart() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    adamw = torch.optim.AdamW(
        [
            {"params": net[0].parameters(), "weight_decay": 0.1},
            {"params": net[1].parameters(), "weight_decay": 0.0},
        ]
    )
    with pytest.raises(ValueError, match="from different groups of AdamW"):
        Guard(net, MARS(net.parameters()), adamw=adamw, baseline=HISTORY)

"""The guard in a real loop: it looks on, warns, and goes back to AdamW with moments."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, SequentialLR

from mars_optim import (
    MARS,
    Baseline,
    Guard,
    GuardSettings,
    MARSAdamW,
    MARSLion,
    Rollback,
    migrate,
    variance_reduce,
)
from mars_optim.guard.readings import Readings

HISTORY = Baseline([1.0 + 0.01 * (i % 5) for i in range(120)], [1.0] * 120, [], [1.0] * 120)
QUICK = GuardSettings(every=2, window=10, patience=4, settle=2, checkpoint_every=5)


class Run:
    """A small regression whose reported loss the test can falsify."""

    def __init__(self, optimizer: str = "mars", **options: Any) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.adamw = torch.optim.AdamW(self.net.parameters(), lr=0.01, betas=(0.9, 0.95))
        self.step = 0
        self.train(self.adamw, 10)
        self.optimizer: torch.optim.Optimizer = self.adamw
        if optimizer == "mars":
            self.optimizer = migrate(self.adamw, **options)

    def train(self, optimizer: torch.optim.Optimizer, steps: int = 1) -> None:
        for _ in range(steps):
            generator = torch.Generator().manual_seed(self.step)
            x = torch.randn(16, 4, generator=generator)
            optimizer.zero_grad()
            (self.net(x) - x.sum(1, keepdim=True)).square().mean().backward()
            optimizer.step()
            self.step += 1

    def guarded(self, guard: Guard, losses: dict[int, float], steps: int) -> Rollback | None:
        """Train to ``steps``; the loss said at a step is 1, or as given from there on."""
        loss = 1.0
        while self.step < steps:
            self.train(guard.optimizer)
            loss = losses.get(self.step, loss)
            back = guard.watch(loss=loss, step_seconds=1.0, position={"batch": self.step})
            if back:
                return back
        return None

    def weights(self) -> list[Tensor]:
        return [v.detach().clone() for v in self.net.state_dict().values()]


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("in_place", [False, True])
def test_it_goes_back_to_the_snapshot_before_the_trouble_with_adamws_moments(
    tmp_path: Path, where: str, in_place: bool
) -> None:
    run, twin = Run(), Run()
    guard = Guard(
        run.net,
        run.optimizer,
        baseline=HISTORY,
        settings=QUICK,
        snapshots="memory" if where == "memory" else tmp_path / "snapshots",
        log=tmp_path / "guard.jsonl",
        in_place=in_place,
        step=run.step,
    )
    back = run.guarded(guard, {27: 9.0}, steps=60)
    assert back is not None
    assert (back.step, back.detected, back.clean) == (20, 30, True)
    assert (back.alarm.signal, back.alarm.since) == ("loss", 27)
    assert back.position == {"batch": 20}
    assert guard.rolled_back
    assert guard.optimizer is back.optimizer
    assert (back.optimizer is run.optimizer) is in_place

    twin.train(twin.optimizer, 10)  # to step 20, where the snapshot is
    assert equal(run.weights(), twin.weights())
    expected = migrate(twin.optimizer, to="adamw")
    run.step = back.step
    for p, q in zip(run.net.parameters(), twin.net.parameters(), strict=True):
        kept = back.optimizer.state[p]
        assert kept.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(v, expected.state[q][k]) for k, v in kept.items())
    run.train(back.optimizer, 20)
    twin.train(expected, 20)  # plain AdamW from there on
    for mine, other in zip(run.weights(), twin.weights(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)

    kinds = [e["event"] for e in events(tmp_path / "guard.jsonl")]
    # at step 25 nothing was wrong yet, but the snapshot is too near to the trouble
    assert kinds == ["start", *["checkpoint"] * 3, "warn", "rollback"]


def test_a_loss_that_is_not_finite_goes_back_at_once_even_just_after_the_switch() -> None:
    run = Run()
    before = run.weights()
    moments = {p: state["exp_avg_sq"].clone() for p, state in run.adamw.state.items()}
    guard = Guard(run.net, run.optimizer, baseline=HISTORY, settings=QUICK, step=run.step)
    back = run.guarded(guard, {11: math.nan}, steps=60)
    assert back is not None
    assert (back.step, back.detected, back.clean) == (10, 12, True)
    assert equal(run.weights(), before)
    for p, kept in moments.items():
        assert torch.equal(back.optimizer.state[p]["exp_avg_sq"], kept)


def test_weights_that_became_nan_are_healthy_again() -> None:
    run = Run()
    guard = Guard(run.net, run.optimizer, baseline=HISTORY, settings=QUICK, step=run.step)
    with torch.no_grad():
        run.net[0].weight.fill_(math.nan)
    run.train(run.optimizer)
    assert guard.watch(loss=math.nan) is None  # not read yet
    back = guard.flush()
    assert back is not None
    assert all(torch.isfinite(w).all() for w in run.weights())
    assert all(p.grad is None for p in run.net.parameters())
    run.train(back.optimizer, 3)
    assert all(torch.isfinite(w).all() for w in run.weights())


def test_shortly_after_the_switch_a_spike_only_warns_and_if_it_lasts_goes_back(
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


def test_where_all_snapshots_are_younger_than_the_trouble_it_says_so() -> None:
    run = Run()
    # drift reaches far back, and one snapshot is kept
    settings = GuardSettings(
        every=1, window=10, patience=4, settle=0, checkpoint_every=5, keep=1,
        rollback_on=("drift",),
    )  # fmt: skip
    guard = Guard(run.net, run.optimizer, baseline=HISTORY, settings=settings, step=10)
    rising = {step: 1.0 + 0.01 * (step - 20) for step in range(20, 200)}
    back = run.guarded(guard, rising, steps=200)
    assert back is not None
    assert back.alarm.signal == "drift"
    assert not back.clean


def test_adamws_own_settings_hold_again_and_the_lr_is_scaled_back() -> None:
    run = Run()
    for group in run.optimizer.param_groups:
        group.update(lr=0.04, betas=(0.95, 0.99), weight_decay=0.1)
    options: dict[str, Any] = dict(adamw=run.adamw, baseline=HISTORY, settings=QUICK, step=10)
    with pytest.raises(ValueError, match=r"lr 0\.04 is more than lr_scale=1 times AdamW's 0\.01"):
        Guard(run.net, run.optimizer, **options)
    guard = Guard(run.net, run.optimizer, lr_scale=4.0, **options)
    for group in run.optimizer.param_groups:
        group["lr"] = 0.02  # the schedule is at its half
    run.guarded(guard, {}, steps=25)
    back = run.guarded(guard, {26: math.nan}, steps=60)
    assert back is not None
    assert back.step > 10
    for group in back.optimizer.param_groups:
        assert (group["lr"], group["betas"], group["weight_decay"]) == (0.005, (0.9, 0.95), 0.01)


def test_a_scheduler_goes_back_too_and_moves_the_adamw_from_then_on() -> None:
    run = Run()
    for group in run.optimizer.param_groups:
        group["lr"] = 0.04
    warm = LambdaLR(run.optimizer, lambda step: min(1.0, (step + 1) / 5))
    scheduler = SequentialLR(
        run.optimizer, [warm, CosineAnnealingLR(run.optimizer, T_max=50)], milestones=[5]
    )
    guard = Guard(
        run.net,
        run.optimizer,
        adamw=run.adamw,
        lr_scale=4.0,
        baseline=HISTORY,
        settings=QUICK,
        extras={"scheduler": scheduler},
    )
    lrs, back = [], None
    while back is None:
        run.train(run.optimizer)
        scheduler.step()
        lrs.append(run.optimizer.param_groups[0]["lr"])
        back = guard.watch(loss=1.0 if len(lrs) < 17 else math.nan, step_seconds=1.0)
    assert scheduler.last_epoch == back.step == 10
    assert back.optimizer.param_groups[0]["lr"] == pytest.approx(lrs[9] * 0.25)
    scheduler.step()
    assert back.optimizer.param_groups[0]["lr"] == pytest.approx(lrs[10] * 0.25)


def test_random_numbers_are_those_after_the_snapshot_again() -> None:
    run = Run()
    guard = Guard(run.net, run.optimizer, baseline=HISTORY, settings=QUICK, step=10)
    drawn = []
    while run.step < 20:
        run.train(run.optimizer)
        guard.watch(loss=1.0, step_seconds=1.0)
        drawn.append(torch.rand(()))
    back = run.guarded(guard, {21: math.nan}, steps=60)
    assert back is not None
    assert back.step == 15
    assert torch.equal(torch.rand(()), drawn[4])  # the one drawn after step 15's


def test_a_guarded_run_resumes_with_its_snapshots_on_disk(tmp_path: Path) -> None:
    def made(run: Run) -> Guard:
        return Guard(
            run.net, run.optimizer, baseline=HISTORY, settings=QUICK, snapshots=tmp_path, step=10
        )

    run = Run()
    guard = made(run)
    assert run.guarded(guard, {}, steps=24) is None
    saved = copy.deepcopy((run.net.state_dict(), run.optimizer.state_dict(), guard.state_dict()))
    json.dumps(saved[2])
    run.guarded(guard, {}, steps=28)  # later snapshots of the run that was lost

    again = Run()
    again.net.load_state_dict(saved[0])
    again.optimizer.load_state_dict(saved[1])
    again.step = 24
    resumed = made(again)
    resumed.load_state_dict(saved[2])
    assert resumed.step == 24
    back = again.guarded(resumed, {25: 9.0}, steps=60)
    assert back is not None
    assert back.step == 20
    assert resumed.state_dict()["rolled_back"]

    third = made(again)
    third.load_state_dict(resumed.state_dict())
    assert third.rolled_back
    assert third.watch(loss=math.nan) is None


def test_snapshots_of_an_earlier_run_in_the_folder_are_not_gone_back_to(tmp_path: Path) -> None:
    for last in (40, 12):
        run = Run()
        guard = Guard(
            run.net, run.optimizer, baseline=HISTORY, settings=QUICK, snapshots=tmp_path, step=10
        )
        back = run.guarded(guard, {last: math.nan}, steps=60)
        assert back is not None
    assert back.step == 10


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


def test_gradients_that_are_scaled_or_not_there_yet_are_not_measured() -> None:
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


def test_an_adamw_under_variance_reduce_can_be_guarded_too() -> None:
    run = Run(optimizer="adamw")
    variance_reduce(run.adamw)
    guard = Guard(run.net, run.adamw, baseline=HISTORY, settings=QUICK, step=10)
    back = run.guarded(guard, {21: math.nan}, steps=60)
    assert back is not None
    assert type(back.optimizer) is torch.optim.AdamW
    assert back.optimizer is not run.adamw
    assert all("mars_last_grad" not in state for state in back.optimizer.state.values())
    run.train(back.optimizer, 3)


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
    with pytest.raises(ValueError, match="treated differently"):
        Guard(net, MARS(net.parameters()), adamw=adamw, baseline=HISTORY)

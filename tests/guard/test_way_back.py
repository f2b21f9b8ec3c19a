"""The guard goes back: to a snapshot before the trouble, and to AdamW with its moments."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, SequentialLR

from mars_optim import Guard, GuardSettings, MARSAdamW, migrate, variance_reduce
from tests.support.run_to_guard import HISTORY, QUICK, Run, equal, events


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("in_place", [False, True])
def test_rollback_takes_snapshot_before_trouble_and_adam_moments(
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


def test_in_place_a_cautious_mars_becomes_adamw_too() -> None:
    run, twin = Run(cautious=True), Run(cautious=True)
    guard = Guard(
        run.net, run.optimizer, baseline=HISTORY, settings=QUICK, step=run.step, in_place=True
    )
    back = run.guarded(guard, {21: math.nan}, steps=60)
    assert back is not None
    twin.train(twin.optimizer, back.step - 10)
    plain = migrate(twin.optimizer, to="adamw")
    run.step = back.step
    run.train(back.optimizer, 20)
    twin.train(plain, 20)
    for mine, other in zip(run.weights(), twin.weights(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_moments_of_another_dtype_come_back_as_adamws_own() -> None:
    net = torch.nn.Linear(4, 4).to(torch.bfloat16)
    mars = MARSAdamW(net.parameters(), lr=1e-3, state_dtype=torch.float32)
    guard = Guard(net, mars, baseline=HISTORY, settings=QUICK)

    def step(optimizer: torch.optim.Optimizer) -> None:
        net(torch.ones(2, 4, dtype=torch.bfloat16)).square().mean().backward()
        optimizer.step()

    for loss in [1.0] * 12 + [math.nan] * 2:
        step(mars)
        back = guard.watch(loss=loss, step_seconds=1.0)
    assert back is not None
    assert back.step == 5
    step(back.optimizer)
    assert all(p.isfinite().all() for p in net.parameters())


def test_nonfinite_loss_rolls_back_at_once_even_after_the_switch() -> None:
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


def test_rollback_is_not_clean_if_every_snapshot_is_too_young() -> None:
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


def test_rollback_restores_adamw_settings_and_scales_lr_back() -> None:
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


def test_rollback_rewinds_scheduler_which_then_drives_adamw() -> None:
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


def test_rollback_ignores_snapshots_of_an_earlier_run(tmp_path: Path) -> None:
    for last in (40, 12):
        run = Run()
        guard = Guard(
            run.net, run.optimizer, baseline=HISTORY, settings=QUICK, snapshots=tmp_path, step=10
        )
        back = run.guarded(guard, {last: math.nan}, steps=60)
        assert back is not None
    assert back.step == 10


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

"""After going back every scheduler moves the AdamW at AdamW's own rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as schedules
from torch.optim.optimizer import Optimizer
from torch.optim.swa_utils import SWALR

from mars_optim import Guard, MARSAdamW
from tests.support.run_to_guard import HISTORY, QUICK, Run

MAKERS: dict[str, Callable[[Optimizer, float], Any]] = {
    "LambdaLR": lambda o, x: schedules.LambdaLR(o, lambda step: 1.0 / (1 + step)),
    "CyclicLR": lambda o, x: schedules.CyclicLR(o, x / 4, x, 7, cycle_momentum=False),
    "OneCycleLR": lambda o, x: schedules.OneCycleLR(o, x, 50, cycle_momentum=False),
    "cosine": lambda o, x: schedules.CosineAnnealingLR(o, 30, eta_min=x / 2),
    "SWALR": lambda o, x: SWALR(o, x / 3, anneal_epochs=25),
    "sequential": lambda o, x: schedules.SequentialLR(
        o,
        [schedules.LinearLR(o, 0.1, 1.0, 5), schedules.CosineAnnealingLR(o, 30, eta_min=x / 3)],
        [5],
    ),
}


class Wrapped:
    """As Accelerate wraps a scheduler."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        for name in ("step", "state_dict", "load_state_dict"):
            setattr(self, name, getattr(scheduler, name))


def mars_of(run: Run, lr: float, **options: Any) -> MARSAdamW:
    return MARSAdamW(run.net.parameters(), lr=lr, **options)


def rates(optimizer: Optimizer, scheduler: Any, steps: int) -> list[list[float]]:
    seen = []
    for _ in range(steps):
        scheduler.step()
        seen.append([float(group["lr"]) for group in optimizer.param_groups])
    return seen


@pytest.mark.filterwarnings("ignore:.*scheduler.step")  # before optimizer.step, in the twin
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
@pytest.mark.parametrize("in_place", [False, True], ids=["new", "in_place"])
@pytest.mark.parametrize("name", MAKERS)
def test_a_schedule_goes_on_at_adamws_rates(name: str, in_place: bool, wrapped: bool) -> None:
    run = Run()
    mars = mars_of(run, 0.04)
    bare = MAKERS[name](mars, 0.04)
    scheduler = Wrapped(bare) if wrapped else bare
    guard = Guard(
        run.net,
        mars,
        baseline=HISTORY,
        settings=QUICK,
        lr_scale=4.0,
        extras={"a": scheduler, "again": bare},
        in_place=in_place,
    )
    back = None
    while back is None:
        run.train(mars)
        scheduler.step()
        back = guard.watch(loss=1.0 if run.step < 27 else math.nan, step_seconds=1.0)
    twin = mars_of(Run(), 0.01)  # AdamW's own rate from the start
    other = MAKERS[name](twin, 0.01)
    rates(twin, other, back.step)
    expected = rates(twin, other, 30)
    seen = rates(back.optimizer, scheduler, 30)
    assert seen == [pytest.approx(row) for row in expected]


def test_a_ratio_of_vectors_stays_in_what_moves_adamw() -> None:
    run = Run()
    mars = mars_of(run, 0.04, lr_1d_ratio=0.1)
    scheduler = schedules.LambdaLR(mars, lambda step: 1.0)
    extras = {"scheduler": scheduler}
    guard = Guard(run.net, mars, baseline=HISTORY, settings=QUICK, lr_scale=4.0, extras=extras)
    run.train(mars)
    guard.watch(loss=math.nan)
    back = guard.flush()
    assert back is not None
    run.train(back.optimizer)
    scheduler.step()
    assert [g["lr"] for g in back.optimizer.param_groups] == pytest.approx([0.01, 0.001])


def test_a_scheduler_that_no_rate_can_be_given_to_is_refused() -> None:
    class Own:
        def __init__(self, optimizer: Optimizer) -> None:
            self.optimizer = optimizer

        def step(self) -> None: ...

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: Any) -> None: ...

    run = Run()
    options: dict[str, Any] = dict(baseline=HISTORY, settings=QUICK)
    own = Own(run.optimizer)
    with pytest.raises(ValueError, match=r"extras\['own'\] \(Own\) is no scheduler of torch's"):
        Guard(run.net, run.optimizer, lr_scale=4.0, extras={"own": own}, **options)
    guard = Guard(run.net, run.optimizer, extras={"own": own}, **options)
    run.train(run.optimizer)
    guard.watch(loss=math.nan)
    back = guard.flush()
    assert back is not None
    assert own.optimizer is back.optimizer

    mars = mars_of(run, 0.04, lr_1d_ratio=0.1)
    cosine = {"cosine": schedules.CosineAnnealingLR(mars, 9, eta_min=0.01)}
    with pytest.raises(ValueError, match="one eta_min for groups with different lr_ratio"):
        Guard(run.net, mars, extras=cosine, **options)
    Guard(run.net, mars, extras=cosine, in_place=True, **options)


def test_a_rate_by_ratio_is_compared_as_it_acts() -> None:
    run = Run()
    matrices = [p for p in run.net.parameters() if p.ndim > 1]
    vectors = [p for p in run.net.parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "lr": 0.001}]
    adamw = torch.optim.AdamW(groups, lr=0.01)
    options: dict[str, Any] = dict(baseline=HISTORY, settings=QUICK, adamw=adamw)
    Guard(run.net, mars_of(run, 0.01, lr_1d_ratio=0.1), **options)
    with pytest.raises(ValueError, match=r"lr 0\.002 is more than lr_scale=1 times AdamW's 0\.001"):
        Guard(run.net, mars_of(run, 0.01, lr_1d_ratio=0.2), **options)

"""With torch's own averaging, learning rate schedulers and GradScaler."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR, AveragedModel, update_bn

from mars_optim import MARS, MARSAdamW, param_groups
from tests.support.toy import (
    OPTIMIZERS,
    assert_same,
    assert_same_model,
    batches,
    loss_of,
    make_toy,
    train_by_hand,
)

every_optimizer = pytest.mark.parametrize("choice", OPTIMIZERS)

SCHEDULERS: dict[str, Callable[[MARS], Any]] = {
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, max_lr=1e-2, total_steps=8),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=8),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.5),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o,
        [
            lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=3),
            lr_scheduler.CosineAnnealingLR(o, T_max=5),
        ],
        milestones=[3],
    ),
}


def advance(scheduler: Any, loss: float) -> None:
    plateau = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
    scheduler.step(loss) if plateau else scheduler.step()


# --- schedulers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULERS)
def test_scheduler_sets_every_group_to_the_lr_it_gives_adamw(name: str) -> None:
    ours, plain = make_toy(), make_toy()
    optimizer = MARSAdamW(ours.parameters(), lr=1e-2)
    adamw = torch.optim.AdamW(plain.parameters(), lr=1e-2)
    one, other = SCHEDULERS[name](optimizer), SCHEDULERS[name](adamw)
    seen = []
    for batch in batches(7):
        train_by_hand(ours, optimizer, [batch])
        train_by_hand(plain, adamw, [batch])
        advance(one, 1.0)
        advance(other, 1.0)
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        assert rates == [adamw.param_groups[0]["lr"]] * 2
        seen.append(rates[0])
    assert len(set(seen)) > 2


@pytest.mark.parametrize("name", SCHEDULERS)
@every_optimizer
def test_run_with_a_scheduler_resumes_to_the_same_bits(name: str, choice: str) -> None:
    whole = make_toy()
    optimizer = OPTIMIZERS[choice](whole.parameters(), lr=1e-2)
    scheduler = SCHEDULERS[name](optimizer)
    for batch in batches(6)[:3]:
        advance(scheduler, train_by_hand(whole, optimizer, [batch])[0])
    saved = copy.deepcopy((whole.state_dict(), optimizer.state_dict(), scheduler.state_dict()))

    resumed = make_toy()
    loaded = OPTIMIZERS[choice](resumed.parameters(), lr=1e-2)
    again = SCHEDULERS[name](loaded)
    resumed.load_state_dict(saved[0])
    loaded.load_state_dict(saved[1])
    again.load_state_dict(saved[2])
    for batch in batches(6)[3:]:
        advance(scheduler, train_by_hand(whole, optimizer, [batch])[0])
        advance(again, train_by_hand(resumed, loaded, [batch])[0])
    assert_same_model(whole, resumed)


def test_one_cycle_changes_betas_and_with_them_the_correction() -> None:
    model = make_toy()
    optimizer = MARSAdamW(model.parameters(), lr=1e-2, clip=None)
    scheduler = lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-2, total_steps=6, base_momentum=0.8, max_momentum=0.9
    )
    param = model.up.weight
    m, last_grad, betas = torch.zeros_like(param), torch.zeros_like(param), []
    for batch in batches(5):
        beta1 = optimizer.param_groups[0]["betas"][0]
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        assert param.grad is not None
        c = param.grad + 0.025 * beta1 / (1 - beta1) * (param.grad - last_grad)
        m, last_grad = beta1 * m + (1 - beta1) * c, param.grad.clone()
        optimizer.step()
        scheduler.step()
        torch.testing.assert_close(optimizer.state[param]["exp_avg"], m)
        betas.append(beta1)
    assert min(betas) < 0.85 < max(betas)
    assert {group["betas"][1] for group in optimizer.param_groups} == {0.99, 0.95}


def test_scheduler_lists_need_one_entry_for_each_mars_group() -> None:
    optimizer = MARSAdamW(make_toy().parameters(), lr=1e-2)
    assert len(optimizer.param_groups) == 2
    with pytest.raises(ValueError, match="2"):
        lr_scheduler.OneCycleLR(optimizer, max_lr=[1e-2], total_steps=4)
    lr_scheduler.OneCycleLR(optimizer, max_lr=[1e-2, 1e-3], total_steps=4)


def test_scheduler_keeps_the_lr_ratio_set_by_param_groups() -> None:
    model = make_toy()
    optimizer = MARS(param_groups(model, lr=1e-2, lr_1d=1e-3))
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)
    for batch in batches(4):
        train_by_hand(model, optimizer, [batch])
        scheduler.step()
        matrices, head, vectors = (group["lr"] for group in optimizer.param_groups)
        assert head == matrices
        assert vectors == pytest.approx(matrices / 10)


# --- averaging ------------------------------------------------------------------------------------


@every_optimizer
def test_averaged_model_is_the_mean_of_the_steps(choice: str) -> None:
    model = make_toy(noisy=True)
    optimizer = OPTIMIZERS[choice](model.parameters(), lr=1e-2)
    averaged = AveragedModel(model)
    scheduler = SWALR(optimizer, swa_lr=5e-3, anneal_epochs=2)
    visited = []
    for batch in batches(4):
        train_by_hand(model, optimizer, [batch])
        averaged.update_parameters(model)
        scheduler.step()
        visited.append([p.detach().clone() for p in model.parameters()])
    for p, steps in zip(averaged.parameters(), zip(*visited, strict=True), strict=True):
        torch.testing.assert_close(p.detach(), torch.stack(steps).mean(dim=0))
    assert [group["lr"] for group in optimizer.param_groups] == [5e-3] * 2
    update_bn((x for x, _ in batches(4)), averaged)
    assert math.isfinite(loss_of(averaged, batches(1)[0]).item())


def test_averaging_leaves_the_previous_point_of_exact_form_alone() -> None:
    alone, followed = make_toy(), make_toy()
    one = MARSAdamW(alone.parameters(), lr=1e-2, correction="exact")
    other = MARSAdamW(followed.parameters(), lr=1e-2, correction="exact")
    averaged = AveragedModel(followed)
    for batch in batches(4):
        train_by_hand(alone, one, [batch])
        train_by_hand(followed, other, [batch])
        averaged.update_parameters(followed)
    assert_same_model(alone, followed)


# --- GradScaler -----------------------------------------------------------------------------------


def scaled_step(
    model: Any, optimizer: MARS, scaler: Any, batch: Any, *, overflow: bool = False
) -> None:
    optimizer.zero_grad()
    scaler.scale(loss_of(model, batch)).backward()
    if overflow:
        model.up.weight.grad[0, 0] = math.inf
    scaler.step(optimizer)
    scaler.update()


@every_optimizer
def test_step_skipped_by_scaler_leaves_parameters_and_history(choice: str) -> None:
    model, other = make_toy(), make_toy()
    optimizer = OPTIMIZERS[choice](model.parameters(), lr=1e-2)
    skipless = OPTIMIZERS[choice](other.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaled_step(model, optimizer, scaler, batches(1)[0])
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    scaled_step(model, optimizer, scaler, batches(2)[1], overflow=True)
    assert_same(before, (model.state_dict(), optimizer.state_dict()))
    assert scaler.get_scale() == 4.0

    # and what follows is the run that never saw that batch: powers of two scale without rounding
    scaled_step(model, optimizer, scaler, batches(3)[2])
    train_by_hand(other, skipless, [batches(3)[0], batches(3)[2]])
    assert_same_model(other, model)


def test_exact_form_step_skipped_by_scaler_leaves_no_trace() -> None:
    model, other = make_toy(), make_toy()
    optimizer = MARSAdamW(model.parameters(), lr=1e-2, correction="exact")
    skipless = MARSAdamW(other.parameters(), lr=1e-2, correction="exact")
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for i, batch in enumerate(batches(5)):
        with optimizer.previous_point(scaler=scaler):
            scaler.scale(loss_of(model, batch)).backward()
        scaled_step(model, optimizer, scaler, batch, overflow=i == 2)
    train_by_hand(other, skipless, [*batches(5)[:2], *batches(5)[3:]])
    assert_same_model(other, model)


@every_optimizer
def test_overflow_in_the_very_first_step_leaves_no_history(choice: str) -> None:
    model = make_toy()
    optimizer = OPTIMIZERS[choice](model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu")
    scaled_step(model, optimizer, scaler, batches(1)[0], overflow=True)
    assert_same_model(make_toy(), model)
    assert not any(value.any() for state in optimizer.state.values() for value in state.values())

"""Under Accelerate: prepare, accumulate, autocast, save_state and load_state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mars_optim import MARS, MARSAdamW
from tests.support.hosts import reset_accelerate, step_by_closures
from tests.support.toy import (
    OPTIMIZERS,
    Batch,
    assert_same,
    assert_same_model,
    batches,
    exact_by_hand,
    loss_of,
    make_toy,
    state_of,
    train_by_hand,
)

accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
every_optimizer = pytest.mark.parametrize("choice", OPTIMIZERS)
every_precision = pytest.mark.parametrize("precision", ["no", "bf16"])


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    """Its settings live in singletons: none from another test."""
    reset_accelerate()
    yield
    reset_accelerate()


def make_accelerator(**options: Any) -> Any:
    return accelerate.Accelerator(cpu=True, **options)


def prepare(accelerator: Any, choice: str, **options: Any) -> tuple[Any, Any]:
    bare = make_toy()
    model, optimizer = accelerator.prepare(
        bare, OPTIMIZERS[choice](bare.parameters(), lr=1e-2, **options)
    )
    return model, optimizer


def train(accelerator: Any, model: Any, optimizer: Any, data: list[Batch]) -> None:
    for batch in data:
        with accelerator.accumulate(model):
            with accelerator.autocast():
                loss = loss_of(model, batch)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()


@pytest.mark.slow_but_one
@every_optimizer
@every_precision
def test_run_resumed_by_load_state_equals_the_uninterrupted_one(
    choice: str, precision: str, tmp_path: Path
) -> None:
    data = batches(8)
    accelerator = make_accelerator(mixed_precision=precision, gradient_accumulation_steps=2)
    model, optimizer = prepare(accelerator, choice)
    train(accelerator, model, optimizer, data[:4])
    accelerator.save_state(str(tmp_path))
    train(accelerator, model, optimizer, data[4:])
    whole = model.state_dict(), state_of(optimizer)
    accelerator.free_memory()

    model, optimizer = prepare(accelerator, choice)
    accelerator.load_state(str(tmp_path))
    train(accelerator, model, optimizer, data[4:])
    assert_same(whole, (model.state_dict(), state_of(optimizer)))
    assert {int(state["step"]) for state in optimizer.state.values()} == {4}


@every_optimizer
def test_prepared_optimizer_steps_as_the_bare_one(choice: str) -> None:
    accelerator = make_accelerator()
    model, optimizer = prepare(accelerator, choice)
    train(accelerator, model, optimizer, batches(4))

    other = make_toy()
    train_by_hand(
        other,
        OPTIMIZERS[choice](other.parameters(), lr=1e-2),
        batches(4),
        max_norm=1.0,
        in_order_of="model",
    )
    assert_same_model(other, model)


def test_accumulated_micro_batches_equal_a_mean_gradient_step() -> None:
    accelerator = make_accelerator(gradient_accumulation_steps=2)
    model, optimizer = prepare(accelerator, "adamw")
    train(accelerator, model, optimizer, batches(4))

    other = make_toy()
    by_hand = MARSAdamW(other.parameters(), lr=1e-2)
    data = batches(4)
    for pair in (data[:2], data[2:]):
        by_hand.zero_grad()
        for batch in pair:
            (loss_of(other, batch) / 2).backward()
        accelerator.clip_grad_norm_(other.parameters(), 1.0)
        by_hand.step()
    assert_same_model(other, model)


def test_exact_form_accumulates_through_the_wrapped_optimizer() -> None:
    accelerator = make_accelerator(gradient_accumulation_steps=2)
    model, optimizer = prepare(accelerator, "adamw", correction="exact")
    for batch in batches(6):
        with accelerator.accumulate(model):
            with optimizer.optimizer.previous_point():
                accelerator.backward(loss_of(model, batch))
            accelerator.backward(loss_of(model, batch))
            optimizer.step()
            optimizer.zero_grad()

    other = make_toy()
    by_hand = MARSAdamW(other.parameters(), lr=1e-2, correction="exact")
    data = batches(6)
    for pair in (data[:2], data[2:4], data[4:]):
        for batch in pair:
            with by_hand.previous_point():
                (loss_of(other, batch) / 2).backward()
            (loss_of(other, batch) / 2).backward()
        by_hand.step()
        by_hand.zero_grad()
    assert_same_model(other, model)


def test_exact_form_takes_a_closure_through_the_wrapper() -> None:
    accelerator = make_accelerator()
    model, optimizer = prepare(accelerator, "adamw", correction="exact")
    step_by_closures(model, optimizer, batches(4), accelerator.backward)
    assert_same_model(exact_by_hand(batches(4)), model)


def test_wrapper_hides_our_methods_but_keeps_them_at_optimizer() -> None:
    accelerator = make_accelerator()
    _, optimizer = prepare(accelerator, "adamw")
    assert not hasattr(optimizer, "describe")
    assert isinstance(optimizer.optimizer, MARS)
    assert "MARS" not in optimizer.optimizer.describe()
    assert "adamw" in optimizer.optimizer.describe()


def test_prepared_scheduler_moves_the_rate_of_every_group() -> None:
    from torch.optim.lr_scheduler import LambdaLR

    accelerator = make_accelerator()
    model, optimizer = prepare(accelerator, "adamw")
    scheduler = accelerator.prepare(LambdaLR(optimizer.optimizer, lambda step: 1 / (1 + step)))
    for batch in batches(3):
        train(accelerator, model, optimizer, [batch])
        scheduler.step()
    assert [g["lr"] for g in optimizer.param_groups] == [1e-2 / 4] * 2

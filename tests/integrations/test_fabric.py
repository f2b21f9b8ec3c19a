"""Under Lightning Fabric: setup, clip_gradients, save and load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import step_by_closures
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

fabric_module = pytest.importorskip("lightning.fabric", reason="lightning is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # the host's own are not ours to fix


def set_up(choice: str, *, precision: str = "32-true", **options: Any) -> tuple[Any, Any, Any]:
    fabric = fabric_module.Fabric(accelerator="cpu", devices=1, precision=precision)
    bare = make_toy()
    model, optimizer = fabric.setup(bare, OPTIMIZERS[choice](bare.parameters(), lr=1e-2, **options))
    return fabric, model, optimizer


def train(fabric: Any, model: Any, optimizer: Any, data: list[Batch]) -> None:
    for batch in data:
        optimizer.zero_grad()
        fabric.backward(loss_of(model, batch))
        fabric.clip_gradients(model, optimizer, max_norm=0.5)
        optimizer.step()


@pytest.mark.parametrize("choice", OPTIMIZERS)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_run_resumed_by_fabric_load_equals_the_uninterrupted_one(
    choice: str, precision: str, tmp_path: Path
) -> None:
    fabric, model, optimizer = set_up(choice, precision=precision)
    train(fabric, model, optimizer, batches(6)[:3])
    fabric.save(tmp_path / "half.ckpt", {"model": model, "optimizer": optimizer})
    train(fabric, model, optimizer, batches(6)[3:])

    fabric, resumed, loaded = set_up(choice, precision=precision)
    fabric.load(tmp_path / "half.ckpt", {"model": resumed, "optimizer": loaded})
    train(fabric, resumed, loaded, batches(6)[3:])
    assert_same_model(model, resumed)
    assert_same(state_of(optimizer), state_of(loaded))


@pytest.mark.parametrize("choice", OPTIMIZERS)
def test_fabric_steps_as_the_plain_loop(choice: str) -> None:
    fabric, model, optimizer = set_up(choice)
    train(fabric, model, optimizer, batches(4))
    other = make_toy()
    train_by_hand(other, OPTIMIZERS[choice](other.parameters(), lr=1e-2), batches(4), max_norm=0.5)
    assert_same_model(other, model.module)


def test_exact_form_takes_a_closure_through_the_wrapper() -> None:
    fabric, model, optimizer = set_up("adamw", correction="exact")
    step_by_closures(model, optimizer, batches(4), fabric.backward)
    assert_same_model(exact_by_hand(batches(4)), model.module)


def test_exact_form_via_the_wrapped_optimizer_equals_plain_loop() -> None:
    fabric, model, optimizer = set_up("adamw", correction="exact")
    for batch in batches(4):
        with optimizer.optimizer.previous_point():
            fabric.backward(loss_of(model, batch))
        optimizer.zero_grad()
        fabric.backward(loss_of(model, batch))
        optimizer.step()
    assert_same_model(exact_by_hand(batches(4)), model.module)


def test_exact_form_by_previous_point_of_the_wrapper() -> None:
    fabric, model, optimizer = set_up("adamw", correction="exact")
    for batch in batches(4):
        with optimizer.previous_point():
            fabric.backward(loss_of(model, batch))
        optimizer.zero_grad()
        fabric.backward(loss_of(model, batch))
        optimizer.step()
    assert_same_model(exact_by_hand(batches(4)), model.module)


def test_describe_and_new_groups_work_through_the_wrapper() -> None:
    _, _, optimizer = set_up("adamw")
    assert optimizer.describe() == optimizer.optimizer.describe()
    extra = make_toy().down
    optimizer.add_param_group({"params": extra.parameters(), "lr": 1e-3})
    assert [g["lr"] for g in optimizer.optimizer.param_groups] == [1e-2, 1e-2, 1e-3, 1e-3]

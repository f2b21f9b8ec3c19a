"""Under Lightning's Trainer, which steps by closure, and its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mars_optim import MARSAdamW
from tests.support.hosts import fit_module
from tests.support.toy import (
    OPTIMIZERS,
    Batch,
    assert_same,
    assert_same_model,
    batches,
    loss_of,
    make_toy,
    state_of,
    train_by_hand,
)

lightning = pytest.importorskip("lightning", reason="lightning is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # the host's own are not ours to fix
PER_EPOCH = 3


def make_module(choice: str = "adamw", *, noisy: bool = False, **options: Any) -> Any:
    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.toy = make_toy(noisy=noisy)
            self.passes = 0

        def on_train_batch_start(self, batch: Batch, index: int) -> None:
            torch.manual_seed(100 + index)

        def training_step(self, batch: Batch, index: int) -> torch.Tensor:
            self.passes += 1
            return loss_of(self.toy, batch)

        def configure_optimizers(self) -> Any:
            optimizer = OPTIMIZERS[choice](self.toy.parameters(), lr=1e-2, **options)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": schedule, "interval": "epoch"},
            }

    return Module()


def fit(folder: Path, module: Any, **options: Any) -> Any:
    return fit_module(folder, module, batches(PER_EPOCH), **options)


@pytest.mark.parametrize("choice", OPTIMIZERS)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_resumed_lightning_run_equals_uninterrupted_run(
    choice: str, precision: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"precision": precision, "gradient_clip_val": 0.5}
    whole = make_module(choice)
    uninterrupted = fit(tmp_path, whole, epochs=2, **options)

    fit(tmp_path, make_module(choice), **options).save_checkpoint(tmp_path / "half.ckpt")
    resumed = make_module(choice)
    trainer = fit(tmp_path, resumed, epochs=2, resume=tmp_path / "half.ckpt", **options)
    assert trainer.global_step == 2 * PER_EPOCH
    assert resumed.passes == PER_EPOCH
    assert_same_model(whole, resumed)
    assert_same(state_of(uninterrupted.optimizers[0]), state_of(trainer.optimizers[0]))


@pytest.mark.parametrize("choice", OPTIMIZERS)
@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_closure_with_gradient_clipping_equals_the_plain_loop(
    choice: str, max_norm: float | None, tmp_path: Path
) -> None:
    module = make_module(choice)
    fit(tmp_path, module, gradient_clip_val=max_norm)
    other = make_toy()
    train_by_hand(
        other, OPTIMIZERS[choice](other.parameters(), lr=1e-2), batches(3), max_norm=max_norm
    )
    assert_same_model(other, module.toy)


@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_exact_form_closure_at_both_points_equals_plain_loop(
    max_norm: float | None, tmp_path: Path
) -> None:
    module = make_module(noisy=True, correction="exact")
    fit(tmp_path, module, gradient_clip_val=max_norm)

    other = make_toy(noisy=True)
    optimizer = MARSAdamW(other.parameters(), lr=1e-2, correction="exact")
    for index, batch in enumerate(batches(PER_EPOCH)):
        torch.manual_seed(100 + index)
        train_by_hand(other, optimizer, [batch], max_norm=max_norm)
    assert_same_model(other, module.toy)
    assert module.passes == 1 + 2 * (PER_EPOCH - 1)  # no previous point before the first step
    assert int(module.toy.norm.num_batches_tracked) == PER_EPOCH


def test_exact_form_resumes_from_a_checkpoint(tmp_path: Path) -> None:
    whole = make_module(correction="exact")
    fit(tmp_path, whole, epochs=2)
    fit(tmp_path, make_module(correction="exact")).save_checkpoint(tmp_path / "half.ckpt")
    resumed = make_module(correction="exact")
    fit(tmp_path, resumed, epochs=2, resume=tmp_path / "half.ckpt")
    assert_same_model(whole, resumed)


def test_accumulation_takes_one_step_for_several_batches(tmp_path: Path) -> None:
    module = make_module()
    trainer = fit(tmp_path, module, accumulate_grad_batches=PER_EPOCH)
    other = make_toy()
    optimizer = MARSAdamW(other.parameters(), lr=1e-2)
    for batch in batches(PER_EPOCH):
        (loss_of(other, batch) / PER_EPOCH).backward()
    optimizer.step()
    assert trainer.global_step == 1
    assert_same_model(other, module.toy)


def make_manual(pass_at_previous_point: Callable[[Any], Any]) -> Any:
    """Manual optimization over PER_EPOCH micro-batches; the argument makes the context."""

    class Manual(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.toy = make_toy()

        def training_step(self, batch: Batch, index: int) -> None:
            optimizer = self.optimizers()
            context = pass_at_previous_point(optimizer)
            if context is not None:
                with context:
                    self.manual_backward(loss_of(self.toy, batch))
            self.manual_backward(loss_of(self.toy, batch))
            if index == PER_EPOCH - 1:
                optimizer.step()
                optimizer.zero_grad()

        def configure_optimizers(self) -> Any:
            return MARSAdamW(self.toy.parameters(), lr=1e-2, correction="exact")

    return Manual()


def accumulated_by_hand(epochs: int) -> Any:
    model = make_toy()
    optimizer = MARSAdamW(model.parameters(), lr=1e-2, correction="exact")
    for _ in range(epochs):
        for batch in batches(PER_EPOCH):
            with optimizer.previous_point():
                loss_of(model, batch).backward()
            loss_of(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_exact_form_accumulates_by_manual_optimization(tmp_path: Path) -> None:
    module = make_manual(lambda optimizer: optimizer.optimizer.previous_point())
    fit(tmp_path, module, epochs=3)
    assert_same_model(accumulated_by_hand(3), module.toy)


def test_exact_form_accumulates_by_previous_point_of_the_wrapper(tmp_path: Path) -> None:
    module = make_manual(lambda optimizer: optimizer.previous_point())
    fit(tmp_path, module, epochs=3)
    assert_same_model(accumulated_by_hand(3), module.toy)


def test_manual_optimization_without_a_previous_point_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="correction='exact' needs"):
        fit(tmp_path, make_manual(lambda optimizer: None), epochs=2)


def test_fp16_scaler_clips_and_steps_and_refuses_the_exact_form(tmp_path: Path) -> None:
    def precision() -> Any:
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        return lightning.pytorch.plugins.MixedPrecision("16-mixed", "cpu", scaler=scaler)

    trainer = fit(tmp_path, make_module(), gradient_clip_val=0.5, plugins=[precision()])
    assert {int(state["step"]) for state in trainer.optimizers[0].state.values()} == {PER_EPOCH}
    with pytest.raises(RuntimeError, match="correction='exact' needs"):
        fit(tmp_path, make_module(correction="exact"), plugins=[precision()])


def test_exact_form_accumulates_automatically_with_the_callback(tmp_path: Path) -> None:
    from mars_optim.integrations.lightning import PreviousPoint

    module = make_module(correction="exact", noisy=True)
    logged: list[int] = []
    module.log = lambda name, value: logged.append(value)
    usual = type(module).training_step

    def training_step(self: Any, batch: Batch, batch_idx: int) -> Any:
        self.log("index", batch_idx)
        return {"loss": usual(self, batch, batch_idx)}

    class Seed(lightning.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            torch.manual_seed(100 + index)

    type(module).training_step = training_step
    del type(module).on_train_batch_start  # it would seed between the two passes
    callbacks = [Seed(), PreviousPoint()]
    fit(tmp_path, module, epochs=3, accumulate_grad_batches=PER_EPOCH, callbacks=callbacks)

    other = make_toy(noisy=True)
    optimizer = MARSAdamW(other.parameters(), lr=1e-2, correction="exact")
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 1e-2 / (1 + epoch)
        for index, batch in enumerate(batches(PER_EPOCH)):
            torch.manual_seed(100 + index)
            with optimizer.previous_point():
                (loss_of(other, batch) / PER_EPOCH).backward()
            (loss_of(other, batch) / PER_EPOCH).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert_same_model(other, module.toy)
    assert logged == [0, 1, 2] * 3  # the second pass alone

"""The set-up of hosts that several tests run under; each host is imported where it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.toy import Batch, loss_of


def reset_accelerate() -> None:
    """Its settings live in singletons: none from another test."""
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def step_by_closures(
    model: Any, optimizer: Any, data: Iterable[Batch], backward: Callable[[Tensor], Any]
) -> None:
    """A step for each batch by a closure, whose backward pass is the host's."""
    for batch in data:

        def closure(batch: Batch = batch) -> float:
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            backward(loss)
            return loss.item()

        optimizer.step(closure)


def fit_module(
    folder: Path,
    module: Any,
    data: list[Batch],
    *,
    epochs: int = 1,
    resume: Path | None = None,
    **options: Any,
) -> Any:
    """Lightning's Trainer after its fit, in silence."""
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    loader = torch.utils.data.DataLoader(data, batch_size=None)  # type: ignore[arg-type]
    trainer.fit(module, loader, ckpt_path=resume)
    return trainer


def gpt2_trainer(
    folder: Path,
    optimizer: tuple[Any, dict[str, Any]] | None,
    *,
    config: dict[str, Any] | None = None,
    max_steps: int = 6,
    **arguments: Any,
) -> Any:
    """transformers' Trainer of a GPT-2 of one layer on repeating bytes, saved every 3 steps.

    Args:
        folder: of its checkpoints.
        optimizer: its class and options; None takes that of the arguments.
        config: of the model, beside its sizes.
        max_steps: of the run.
        arguments: further TrainingArguments.
    """
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    made = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=16, vocab_size=32, n_positions=8, bos_token_id=0,
        eos_token_id=0, **(config or {}),
    )  # fmt: skip
    rows = [torch.arange(i, i + 8) % 32 for i in range(24)]
    return transformers.Trainer(
        model=transformers.GPT2LMHeadModel(made),
        args=transformers.TrainingArguments(
            output_dir=str(folder),
            max_steps=max_steps,
            save_steps=3,
            per_device_train_batch_size=4,
            weight_decay=0.1,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            **arguments,
        ),
        train_dataset=[{"input_ids": row, "labels": row} for row in rows],
        optimizer_cls_and_kwargs=optimizer,
    )

"""The one-line helpers write what a plan with a command reads."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mars_optim.experiment.external.metric_files import read_rows
from mars_optim.experiment.external.recorder import Columns, Recorder
from mars_optim.integrations.plain import RecordMetrics
from tests.support.hosts import fit_module

pytestmark = pytest.mark.filterwarnings("default")  # the hosts' own are not ours to fix


def final(folder: Path, steps: int) -> tuple[int, float]:
    """Step and value of the last validation loss, as a pilot reads them."""
    recorder = Recorder(Columns(), steps, lambda **row: None)
    for row in read_rows(folder / "metrics.jsonl"):
        recorder.add(row)
    assert recorder.step == steps
    assert recorder.outcome(0.0).seconds > 0
    assert recorder.valid is not None
    return recorder.valid


def test_handwritten_loop_appends_rows_readable_at_once(tmp_path: Path):
    record = RecordMetrics(tmp_path / "new")
    record(step=1, loss=2.5)
    path = tmp_path / "new" / "metrics.jsonl"
    assert json.loads(path.read_text()) == {"step": 1, "loss": 2.5}
    RecordMetrics(tmp_path / "new")(step=2, valid_loss=2.0)
    assert len(path.read_text().splitlines()) == 2


def test_only_the_first_rank_writes(tmp_path: Path):
    RecordMetrics(tmp_path / "new", write=False)(step=1, loss=2.5)
    assert not (tmp_path / "new").exists()


def module(least: float = 0.0) -> Any:
    """A small LightningModule, whose losses in training are at least this much."""
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return self.layer(batch).square().mean().clamp(min=least)

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_loss", self.layer(batch).square().mean())

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    return Module()


def test_lightnings_trainer_leaves_its_losses(tmp_path: Path):
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")
    from mars_optim.integrations.lightning import RecordMetrics as Callback

    data = torch.utils.data.DataLoader(torch.randn(24, 4, dtype=torch.float32), batch_size=4)
    trained = module()
    trainer = lightning.Trainer(
        max_steps=6,
        callbacks=[Callback(tmp_path)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(trained, data, data)
    (value,) = trainer.validate(trained, data, verbose=False)
    assert final(tmp_path, 6) == (6, pytest.approx(value["val_loss"]))


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_lightnings_losses_are_whole_with_accumulation(tmp_path: Path, micro_batches: int):
    pytest.importorskip("lightning", reason="lightning is not installed")
    from mars_optim.integrations.lightning import RecordMetrics as Callback

    fit_module(
        tmp_path,
        module(least=1e6),
        list(torch.randn(2 * micro_batches, 4, 4)),
        accumulate_grad_batches=micro_batches,
        callbacks=[Callback(tmp_path)],
    )
    assert [row["loss"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1e6, 1e6]


def test_transformers_trainer_leaves_its_losses(tmp_path: Path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    from mars_optim.integrations.transformers import RecordMetrics as Callback

    from .test_transformers_trainer import make_trainer

    trainer = make_trainer(tmp_path, "MARSAdamW")
    trainer.add_callback(Callback(tmp_path))
    trainer.train()
    data = trainer.train_dataset
    value = trainer.evaluate(data)["eval_loss"]
    assert final(tmp_path, 6) == (6, pytest.approx(value))
    losses = [row["loss"] for row in read_rows(tmp_path / "metrics.jsonl") if "loss" in row]
    assert len(losses) == 6


def test_transformers_trainer_writes_metrics_by_their_names(tmp_path: Path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    from mars_optim.integrations.transformers import RecordMetrics as Callback

    state = SimpleNamespace(global_step=6, num_input_tokens_seen=0, is_world_process_zero=True)
    logs = {"eval_loss": 1.5, "eval_accuracy": 0.5, "epoch": 1.0}
    Callback(tmp_path).on_log(None, state, None, logs=logs)
    (row,) = read_rows(tmp_path / "metrics.jsonl")
    assert (row["step"], row["valid_loss"], row["eval_accuracy"]) == (6, 1.5, 0.5)
    assert "epoch" not in row

"""Under LightningCLI, which makes the optimizer that a command line or a YAML file names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mars_optim import MARSAdamW, create
from tests.support.toy import batches, loss_of, make_toy

pytest.importorskip("jsonargparse", reason="LightningCLI needs jsonargparse[signatures]")
lightning = pytest.importorskip("lightning", reason="lightning is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # the host's own are not ours to fix

QUIET = [
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
    "--trainer.max_epochs=1",
    "--trainer.logger=false",
    "--trainer.enable_checkpointing=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]


def run(folder: Path, arguments: list[str], *, named: bool = False) -> Any:
    from lightning.pytorch.cli import LightningCLI

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, optimizer: str = "mars-adamw", lr: float = 3e-3) -> None:
            super().__init__()
            self.toy, self.optimizer, self.lr = make_toy(), optimizer, lr

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return loss_of(self.toy, batch)

        def train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(batches(3), batch_size=None)

    if named:
        Module.configure_optimizers = lambda self: create(self.optimizer, self.toy, lr=self.lr)
    arguments = ["fit", *QUIET, f"--trainer.default_root_dir={folder}", *arguments]
    return LightningCLI(Module, args=arguments, save_config_callback=None).trainer


def test_the_class_is_named_by_its_path_on_the_command_line(tmp_path: Path) -> None:
    trainer = run(
        tmp_path,
        ["--optimizer=mars_optim.MARSAdamW", "--optimizer.lr=0.002", "--optimizer.gamma=0.05"],
    )
    (optimizer,) = trainer.optimizers
    assert isinstance(optimizer, MARSAdamW)
    assert [(g["lr"], g["gamma"]) for g in optimizer.param_groups] == [(0.002, 0.05), (0.002, 0.0)]
    assert {int(state["step"]) for state in optimizer.state.values()} == {3}


def test_or_in_a_yaml_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "optimizer:\n  class_path: mars_optim.MARSM\n  init_args:\n    lr: 0.002\n    gamma: auto\n"
    )
    (optimizer,) = run(tmp_path, [f"--config={file}"]).optimizers
    assert {g["gamma_schedule"] for g in optimizer.param_groups if g["gamma"]} == {"auto"}
    assert optimizer.param_groups[0]["rule"] == "muon"


def test_or_by_a_name_that_the_module_takes(tmp_path: Path) -> None:
    trainer = run(tmp_path, ["--model.optimizer=mars-m", "--model.lr=0.002"], named=True)
    (optimizer,) = trainer.optimizers
    assert optimizer.param_groups[0]["rule"] == "muon"
    assert optimizer.param_groups[0]["lr"] == 0.002

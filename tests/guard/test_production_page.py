"""The Python blocks of docs/production.md do what the page says, and its numbers are the tests'."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mars_optim
from mars_optim import Baseline, Guard, GuardSettings

PAGE = Path(__file__).parents[2] / "docs" / "production.md"
pytestmark = [
    pytest.mark.filterwarnings("default"),  # the hosts' own are not ours to fix
    pytest.mark.skipif(not PAGE.exists(), reason="docs are not in this copy of the package"),
]


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def run(number: int, **names: Any) -> dict[str, Any]:
    scope = {"torch": torch, "mars_optim": mars_optim, **names}
    exec(compile(blocks()[number], str(PAGE), "exec"), scope)
    return scope


def test_page_records_history_and_its_guarded_loop_rolls_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    batches = [torch.randn(8, 4) for _ in range(150)]
    seen = []

    def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> Any:
        optimizer.zero_grad()
        loss = (model(batch) - 1.0).square().mean() + 1.0
        loss.backward()
        optimizer.step()
        seen.append(type(optimizer).__name__)
        return loss * (float("nan") if len(seen) == 250 else 1.0)

    names = dict(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters()),
        batches=batches,
        train_step=train_step,
    )
    run(0, **names)
    scope = run(1, **names)
    assert scope["step"] == 200
    assert type(scope["optimizer"]) is torch.optim.AdamW
    assert {"MARS", "AdamW"} == set(seen[150:])
    assert "rollback" in (tmp_path / "mars-pilot" / "guard.jsonl").read_text()


def test_page_makes_the_adamw_of_a_run_that_had_gone_back() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 1))
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3)
    mars = mars_optim.migrate(adamw)
    model(torch.randn(8, 4)).square().mean().backward()
    mars.step()
    kept = mars_optim.migrate(mars, to="adamw")
    state = kept.state_dict()
    with pytest.raises(ValueError, match="different number of parameter groups"):
        torch.optim.AdamW(model.parameters()).load_state_dict(state)
    again = run(2, model=model, state=state)["optimizer"]
    for p in model.parameters():
        assert torch.equal(again.state[p]["exp_avg"], kept.state[p]["exp_avg"])


def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Baseline([4.0 + 0.01 * (i % 7) for i in range(120)]).save("baseline.json")
    # every step is read, and any loss of these small models counts as the trouble it is made of
    settings = GuardSettings(every=1, window=10, patience=2, settle=0, loss_rise=0.0)
    real = Guard.__init__

    def quick(self: Guard, *args: Any, **options: Any) -> None:
        real(self, *args, **{"settings": settings, **options})

    monkeypatch.setattr(Guard, "__init__", quick)


def turned_off(optimizer: Any) -> bool:
    return all(g["gamma"] == 0.0 and g["clip"] is None for g in optimizer.param_groups)


def watched_losses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The losses that guards are called with from now on."""
    losses: list[float] = []
    real = Guard.watch

    def watch(self: Guard, *, loss: Any, **options: Any) -> Any:
        losses.append(float(loss))
        return real(self, loss=loss, **options)

    monkeypatch.setattr(Guard, "watch", watch)
    return losses


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_under_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro_batches: int
) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    ready(tmp_path, monkeypatch)
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=32, n_positions=8)
    rows = [torch.arange(i, i + 8) % 32 for i in range(8)]
    args = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=6, use_cpu=True, disable_tqdm=True,
        report_to=[], logging_steps=1, gradient_accumulation_steps=micro_batches,
        per_device_train_batch_size=1,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.wte.weight.mul_(40.0)  # losses far above the history
    optimizer = mars_optim.MARSAdamW(model.named_parameters(), lr=1e-4)
    losses = watched_losses(monkeypatch)
    scope = run(
        3,
        model=model,
        optimizer=optimizer,
        args=args,
        dataset=[{"input_ids": row, "labels": row} for row in rows],
    )
    assert scope["guard"].rolled_back
    assert scope["trainer"].optimizer.optimizer is optimizer
    assert scope["trainer"].state.global_step == 6
    assert turned_off(optimizer)
    logged = [row["loss"] for row in scope["trainer"].state.log_history if "loss" in row]
    assert losses == pytest.approx(logged, rel=1e-3)


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_under_lightning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro_batches: int
) -> None:
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")
    ready(tmp_path, monkeypatch)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 1)

        def training_step(self, batch: Any, index: int) -> Any:
            return self.net(batch).mean() * 0.0 + 70.0 + index

        def configure_optimizers(self) -> Any:
            return mars_optim.MARSAdamW(self.net.parameters(), lr=1e-4)

    watch = run(4)["Watch"]()
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, default_root_dir=tmp_path, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[watch], accumulate_grad_batches=micro_batches,
    )  # fmt: skip
    count = 6 * micro_batches - (micro_batches > 1)  # of the last step one is missing
    data = torch.utils.data.DataLoader([torch.randn(8, 4) for _ in range(count)], batch_size=None)
    losses = watched_losses(monkeypatch)
    trainer.fit(Module(), data)
    assert trainer.global_step == 6
    steps = torch.arange(70.0, 70.0 + count).split(micro_batches)
    assert losses == [float(step.mean()) for step in steps]
    assert watch.guard.rolled_back
    assert turned_off(trainer.optimizers[0])


def test_the_limits_on_the_page_are_the_defaults() -> None:
    page, s = PAGE.read_text(), GuardSettings()
    for words in (
        f"more than half of the last {s.patience} losses",
        f"running median of {s.window}",
        f"more than {s.loss_sigmas:g} robust deviations",
        f"{100 * s.loss_rise:g} % | back",
        f"{100 * s.drift_rise:g} % (and those",
        f"{s.grad_norm_factor:g} times the history's 99 % quantile",
        f"{100 * s.clip_share_rise:g} points above",
        f"above {s.step_time_factor:g} times",
        f"`settle={s.settle}`",
        f"`checkpoint_every={s.checkpoint_every}`",
        f"`keep={s.keep}`",
        f"`every={s.every}`",
    ):
        assert words in page, words

"""A run of AdamW under a host goes on as a MARS by migrate, and only by it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim import MARSAdamW, migrate
from tests.support.hosts import fit_module, gpt2_trainer, reset_accelerate
from tests.support.nano import nano, saved_nano, train_nano
from tests.support.toy import batches, loss_of, make_toy

ADAMW: dict[str, Any] = {"lr": 3e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
# A MARS that takes AdamW's steps, so that the moments alone make a difference.
PLAIN: dict[str, Any] = {"gamma": 0.0, "clip": None}
hosts_own_warnings = pytest.mark.filterwarnings("default")


def assert_close(one: nn.Module, other: nn.Module) -> None:
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)


def without_key_biases(model: nn.Module) -> nn.Module:
    """The model with them at 0: attention does not depend on them, so their gradients are rounding,
    which Adam scales to whole steps.
    """
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("c_attn.bias"):
                p.chunk(3)[1].zero_()
    return model


# --- nanoGPT ------------------------------------------------------------------------------------


def test_nanogpt_resumed_by_its_own_line_is_refused(tmp_path: Path) -> None:
    saved_nano(tmp_path / "ckpt.pt")
    _, optimizer = nano(MARSAdamW)
    checkpoint = torch.load(tmp_path / "ckpt.pt", map_location="cpu")
    with pytest.raises(ValueError, match=r"no 'rule'.*mars_optim\.migrate\(state_dict, model\)"):
        optimizer.load_state_dict(checkpoint["optimizer"])
    assert [g["gamma"] for g in optimizer.param_groups] == [0.025, 0.0]


@pytest.mark.parametrize("there", [True, False])
def test_nanogpts_checkpoint_goes_on_by_migrate(there: bool, tmp_path: Path) -> None:
    """Into MARS, and from a MARS's checkpoint back."""
    path = tmp_path / "ckpt.pt"

    def plain_mars(groups: Any, **options: Any) -> MARSAdamW:
        return MARSAdamW(groups, **options, **PLAIN)

    saved_nano(path, torch.optim.AdamW if there else plain_mars)
    model, _ = nano(torch.optim.AdamW)
    model.load_state_dict(torch.load(path)["model"])
    twin, other = nano(torch.optim.AdamW if there else plain_mars)
    twin.load_state_dict(torch.load(path)["model"])
    other.load_state_dict(torch.load(path)["optimizer"])
    with pytest.raises(ValueError, match="order='ndim' fits"):
        migrate(path, model.named_parameters(), key="optimizer")
    to: Any = "mars" if there else "adamw"
    target = migrate(path, model, key="optimizer", order="ndim", to=to, **(PLAIN if there else {}))
    assert [g["weight_decay"] for g in target.param_groups] == [0.1, 0.0]
    assert target.param_groups[0]["param_names"][0] == "transformer.wte.weight"
    train_nano(model, target, range(3, 6))
    train_nano(twin, other, range(3, 6))
    assert_close(*map(without_key_biases, (model, twin)))


# --- transformers: Trainer ------------------------------------------------------------------------


def make_trainer(folder: Path, optimizer: Any) -> Any:
    """Without dropout, at a fixed rate."""
    still = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return gpt2_trainer(folder, optimizer, config=still, learning_rate=3e-3)


@pytest.mark.slow
@hosts_own_warnings
def test_trainer_adamw_checkpoint_is_refused_naming_migrate(tmp_path: Path) -> None:
    make_trainer(tmp_path, (torch.optim.AdamW, ADAMW)).train()
    resumed = make_trainer(tmp_path / "resumed", (MARSAdamW, {"lr": 3e-3}))
    with pytest.raises(ValueError, match=r"no 'rule'.*mars_optim\.migrate\(state_dict, model\)"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


@pytest.mark.slow
@hosts_own_warnings
def test_trainer_resumes_from_its_own_checkpoint_once_migrated(tmp_path: Path) -> None:
    whole = make_trainer(tmp_path, (torch.optim.AdamW, ADAMW))
    whole.train()
    resumed = make_trainer(tmp_path / "resumed", (MARSAdamW, {**ADAMW, **PLAIN}))
    file = tmp_path / "checkpoint-3" / "optimizer.pt"
    with pytest.raises(ValueError, match="order='ndim' fits"):
        migrate(file, resumed.model.named_parameters())
    optimizer = migrate(file, resumed.model, order="trainer", **PLAIN)
    torch.save(optimizer.state_dict(), file)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.state.global_step == 6
    states = resumed.optimizer.optimizer.state.values()
    assert {int(state["step"]) for state in states} == {6}
    assert_close(whole.model, resumed.model)


@hosts_own_warnings
def test_the_trainers_split_is_known_as_it_makes_it(tmp_path: Path) -> None:
    """On its own model, whose norms are nn.LayerNorm, and on names and modules that are harder."""
    from mars_optim.optim.tools.parameter_order import Given, readings

    class Hard(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layernorm_gain = nn.Parameter(torch.ones(3))
            self.inner = nn.ModuleDict({"norm": nn.Linear(3, 3), "q_norm": nn.Linear(3, 3)})
            self.normal = nn.Linear(3, 3)
            self.ln = nn.LayerNorm(3)
            self.rest = nn.Parameter(torch.ones(3))

    trainer = make_trainer(tmp_path, (torch.optim.AdamW, ADAMW))
    for model in (trainer.model, Hard()):
        decayed = set(trainer.get_decay_parameter_names(model))
        named = list(model.named_parameters())
        expected = [
            *(n for n, _ in named if n in decayed),
            *(n for n, _ in named if n not in decayed),
        ]
        groups = [
            {"params": [n for n, _ in named if (n in decayed) is way]} for way in (True, False)
        ]
        found = readings({"state": {}, "param_groups": groups}, Given.of(model), "trainer")
        assert expected in [[n for n, _ in reading] for reading in found]


# --- Lightning and Accelerate ---------------------------------------------------------------------


def fit(folder: Path, make: Any, *, epochs: int, resume: Path | None = None) -> tuple[Any, Any]:
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.toy = make_toy()

        def training_step(self, batch: Any, index: int) -> Tensor:
            return loss_of(self.toy, batch)

        def configure_optimizers(self) -> Any:
            return make(self.toy.parameters(), **ADAMW)

    module = Module()
    trainer = fit_module(folder, module, batches(3), epochs=epochs, resume=resume)
    return trainer, module


def plain_mars(params: Any, **options: Any) -> MARSAdamW:
    return MARSAdamW(params, **options, betas_1d=options["betas"], **PLAIN)


@hosts_own_warnings
def test_lightning_adamw_checkpoint_is_refused_until_migrated(tmp_path: Path) -> None:
    _, whole = fit(tmp_path, torch.optim.AdamW, epochs=2)
    half, _ = fit(tmp_path, torch.optim.AdamW, epochs=1)
    file = tmp_path / "half.ckpt"
    half.save_checkpoint(file)
    with pytest.raises(ValueError, match=r"no 'rule'.*mars_optim\.migrate\("):
        fit(tmp_path, plain_mars, epochs=2, resume=file)
    with pytest.raises(ValueError, match=r"one is at key='optimizer_states\.0'"):
        migrate(file, make_toy())
    checkpoint = torch.load(file)
    optimizer = migrate(file, make_toy(), key="optimizer_states.0", **PLAIN)
    checkpoint["optimizer_states"][0] = optimizer.state_dict()
    torch.save(checkpoint, file)
    trainer, resumed = fit(tmp_path, plain_mars, epochs=2, resume=file)
    assert trainer.global_step == 6
    assert_close(whole, resumed)


@hosts_own_warnings
def test_accelerates_load_state_refuses_another_optimizers(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")

    def prepared(make: Any) -> tuple[Any, Any, Any]:
        reset_accelerate()
        accelerator, toy = accelerate.Accelerator(cpu=True), make_toy()
        return (accelerator, *accelerator.prepare(toy, make(toy.parameters(), **ADAMW)))

    accelerator, model, adamw = prepared(torch.optim.AdamW)
    for batch in batches(3):
        accelerator.backward(loss_of(model, batch))
        adamw.step()
        adamw.zero_grad()
    accelerator.save_state(str(tmp_path))
    whole = copy.deepcopy(model)
    accelerator, model, optimizer = prepared(plain_mars)
    with pytest.raises(ValueError, match=r"no 'rule'.*mars_optim\.migrate\("):
        accelerator.load_state(str(tmp_path))
    moved = migrate(tmp_path / "optimizer.bin", model, **PLAIN)
    optimizer.load_state_dict(moved.state_dict())
    assert_close(whole, model)
    assert len(optimizer.state) == len(list(model.parameters()))

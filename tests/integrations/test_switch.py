"""A run of AdamW under a host goes on as a MARS by migrate, and only by it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mars_optim import MARSAdamW, migrate
from tests.support.toy import batches, loss_of, make_toy

ADAMW: dict[str, Any] = {"lr": 3e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
# A MARS that takes AdamW's steps, so that the moments alone make a difference.
PLAIN: dict[str, Any] = {"gamma": 0.0, "clip": None}
hosts_own_warnings = pytest.mark.filterwarnings("default")


def assert_close(one: nn.Module, other: nn.Module) -> None:
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)


# --- nanoGPT: a faithful stand-in of its model's names, configure_optimizers and ckpt.pt ----------


class CausalSelfAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (y.unsqueeze(1) for y in self.c_attn(x).chunk(3, -1))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.squeeze(1))  # type: ignore[no-any-return]


class NanoBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = CausalSelfAttention(width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class NanoGPT(nn.Module):
    def __init__(self, vocabulary: int = 17, context: int = 8, width: int = 8) -> None:
        super().__init__()
        parts = {
            "wte": nn.Embedding(vocabulary, width),
            "wpe": nn.Embedding(context, width),
            "h": nn.ModuleList([NanoBlock(width) for _ in range(2)]),
            "ln_f": nn.LayerNorm(width),
        }
        self.transformer = nn.ModuleDict(parts)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.transformer["wte"].weight = self.lm_head.weight

    def forward(self, idx: Tensor) -> Tensor:
        x = self.transformer["wte"](idx) + self.transformer["wpe"](torch.arange(idx.shape[1]))
        for block in self.transformer["h"]:  # type: ignore[union-attr]
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))  # type: ignore[no-any-return]

    def configure_optimizers(
        self, weight_decay: float, learning_rate: float, betas: Any, make: Any
    ) -> torch.optim.Optimizer:
        param_dict = dict(self.named_parameters())
        param_dict = {pn: p for pn, p in param_dict.items() if p.requires_grad}
        decay_params = [p for n, p in param_dict.items() if p.dim() >= 2]
        nodecay_params = [p for n, p in param_dict.items() if p.dim() < 2]
        optim_groups = [
            {"params": decay_params, "weight_decay": weight_decay},
            {"params": nodecay_params, "weight_decay": 0.0},
        ]
        return make(optim_groups, lr=learning_rate, betas=betas)  # type: ignore[no-any-return]


def nano(make: Any) -> tuple[NanoGPT, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = NanoGPT()
    return model, model.configure_optimizers(0.1, 3e-3, (0.9, 0.95), make)


def train_nano(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randint(17, (4, 9), generator=torch.Generator().manual_seed(step))
        loss = functional.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def saved_nano(path: Path, make: Any = torch.optim.AdamW) -> None:
    model, optimizer = nano(make)
    train_nano(model, optimizer, range(3))
    checkpoint = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "model_args": {"n_layer": 2, "n_embd": 8, "block_size": 8, "bias": True},
        "iter_num": 3,
        "best_val_loss": torch.tensor(1e9),
        "config": {"dataset": "shakespeare_char", "learning_rate": 3e-3},
    }
    torch.save(checkpoint, path)


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
    assert_close(model, twin)


# --- transformers: Trainer ------------------------------------------------------------------------


def make_trainer(folder: Path, optimizer: Any, steps: int = 6) -> Any:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=16, vocab_size=32, n_positions=8, bos_token_id=0,
        eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    rows = [torch.arange(i, i + 8) % 32 for i in range(24)]
    return transformers.Trainer(
        model=transformers.GPT2LMHeadModel(config),
        args=transformers.TrainingArguments(
            output_dir=str(folder),
            max_steps=steps,
            save_steps=3,
            per_device_train_batch_size=4,
            weight_decay=0.1,
            learning_rate=3e-3,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=[{"input_ids": row, "labels": row} for row in rows],
        optimizer_cls_and_kwargs=optimizer,
    )


@hosts_own_warnings
def test_trainer_adamw_checkpoint_is_refused_naming_migrate(tmp_path: Path) -> None:
    make_trainer(tmp_path, (torch.optim.AdamW, ADAMW)).train()
    resumed = make_trainer(tmp_path / "resumed", (MARSAdamW, {"lr": 3e-3}))
    with pytest.raises(ValueError, match=r"no 'rule'.*mars_optim\.migrate\(state_dict, model\)"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


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

    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Module()
    loader = torch.utils.data.DataLoader(batches(3), batch_size=None)
    trainer.fit(module, loader, ckpt_path=resume)
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
    from accelerate.state import AcceleratorState, GradientState

    def prepared(make: Any) -> tuple[Any, Any, Any]:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
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

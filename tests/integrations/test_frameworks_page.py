"""The Python blocks of docs/frameworks.md do what the page says."""

from __future__ import annotations

import functools
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from mars_optim import MARS, MARSM, MARSAdamW
from tests.support import titan
from tests.support.hosts import fit_module
from tests.support.nano import nano, saved_nano
from tests.support.paths import ROOT
from tests.support.toy import batches, make_toy

PAGE = ROOT / "docs" / "frameworks.md"
pytestmark = [
    pytest.mark.filterwarnings("default"),  # the hosts' own are not ours to fix
    pytest.mark.skipif(not PAGE.exists(), reason="docs are not in this copy of the package"),
]


def block(heading: str, number: int = 0) -> str:
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[number]


def yaml_block(heading: str) -> Any:
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return pytest.importorskip("yaml").safe_load(text)


def run(code: str, **names: Any) -> dict[str, Any]:
    scope = {"torch": torch, **names}
    exec(compile(code, str(PAGE), "exec"), scope)
    return scope


def test_plain_torch() -> None:
    scope = run(block("Plain torch"), model=make_toy())
    scope["optimizer"].step()
    scope["scheduler"].step()
    assert isinstance(scope["optimizer"], MARS)


def test_an_optimizer_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    optimizer = run(block("By name"), model=make_toy())["optimizer"]
    assert {g["gamma_schedule"] for g in optimizer.param_groups if g["gamma"]} == {"auto"}
    assert "'mars-adamw-auto'" in capsys.readouterr().out


def test_the_trainers_command_line_takes_a_name(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    model, dataset = tiny_gpt2(transformers)
    line = "--optim mars-adamw --optim_args gamma=auto,eps=1e-6 --learning_rate 0.002"
    line += f" --weight_decay 0.1 --output_dir {tmp_path} --max_steps 2 --use_cpu --report_to none"
    names = dict(command_line=line.split(), model=model, dataset=dataset)
    scope = run(block("By name", 1), **names)
    scope["trainer"].train()
    matrices, *_ = scope["trainer"].optimizer.optimizer.param_groups
    found = [matrices[key] for key in ("gamma_schedule", "eps", "initial_lr", "weight_decay")]
    assert found == ["auto", 1e-6, 0.002, 0.1]


def test_torchtitans_container_takes_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchtitan", "torchtitan.components"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "torchtitan.components.optimizer", titan)
    container = run(block("By name", 2), __name__="recipe")["NamedOptimizers"]
    ours = [("embed|lm_head|norm", "mars-adamw", {}), (".*", "mars-m", {"lr": 0.01})]
    groups = [
        titan.ParamGroupConfig(
            pattern=pattern, optimizer_name=name, optimizer_kwargs={"fused": None, **options}
        )
        for pattern, name, options in ours
    ]
    model = Titan(moe=False)
    made = container.Config(param_groups=groups).build(model_parts=[model])
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    made.step()
    rules = [{(g["rule"], g["lr"], g["weight_decay"]) for g in o.param_groups} for o in made]
    assert rules == [{("adamw", 3e-3, 0.01)}, {("muon", 0.01, 0.1)}]


def test_a_lightning_module_takes_a_name(tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="lightning is not installed")
    module = run(block("By name", 3), make_model=make_toy)["Named"]("mars-m", lr=0.01)
    (optimizer,) = fit_module(tmp_path, module, batches(3)).optimizers
    assert ("muon", 0.01) in {(g["rule"], g["lr"]) for g in optimizer.param_groups}


def test_a_hydra_target_makes_a_partial_that_takes_the_model() -> None:
    config = yaml_block("By name")["optimizer"]
    module, _, name = config.pop("_target_").rpartition(".")
    assert config.pop("_partial_") is True  # what hydra.utils.instantiate does then
    target = getattr(importlib.import_module(module), name)
    optimizer = functools.partial(target, *config.pop("_args_"), **config)(make_toy())
    assert optimizer.param_groups[0]["lr"] == 1e-3
    assert optimizer.param_groups[0]["gamma_schedule"] == "auto"


def test_nanogpt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved_nano(tmp_path / "ckpt.pt")
    model, _ = nano(MARSAdamW)
    optimizer = run(block("nanoGPT"), model=model)["optimizer"]
    assert {int(state["step"]) for state in optimizer.state.values()} == {3}


def tiny_gpt2(transformers: Any) -> tuple[nn.Module, list[dict[str, torch.Tensor]]]:
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=32, n_positions=8)
    rows = [torch.arange(i, i + 8) % 32 for i in range(8)]
    dataset = [{"input_ids": row, "labels": row} for row in rows]
    return transformers.GPT2LMHeadModel(config), dataset


@pytest.mark.parametrize("number", [0, 1])
def test_transformers_trainer(number: int, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    model, dataset = tiny_gpt2(transformers)
    args = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, use_cpu=True, disable_tqdm=True, report_to=[]
    )
    code = block("transformers: Trainer", number)
    scope = run(code, model=model, args=args, dataset=dataset)
    scope["trainer"].train()
    optimizer = scope["trainer"].optimizer.optimizer
    assert isinstance(optimizer, MARS)
    assert {int(state["step"]) for state in optimizer.state.values()} == {2}


def test_accelerate(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    run(block("Accelerate"), model=make_toy())
    assert "adamw" in capsys.readouterr().out


def test_lightning(tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="lightning is not installed")
    module = run(block("Lightning"))["Module"](make_toy())
    trainer = fit_module(tmp_path, module, batches(3))
    assert trainer.global_step == 3


def test_fabric() -> None:
    pytest.importorskip("lightning", reason="lightning is not installed")
    x, y = batches(1)[0]
    scope = run(block("Fabric"), model=make_toy(), x=x, y=y)
    assert {int(state["step"]) for state in scope["optimizer"].optimizer.state.values()} == {1}


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1_EFD = nn.Parameter(torch.randn(4, 6, 8))


class Titan(nn.Module):
    """The names and shapes of torchtitan's models, two layers, the second with experts if asked."""

    def __init__(self, *, moe: bool) -> None:
        super().__init__()
        linear = nn.Linear(8, 8, bias=False)
        dense = nn.ModuleDict({"attention": linear, "attention_norm": nn.RMSNorm(8)})
        self.tok_embeddings = nn.Embedding(16, 8)
        self.layers = nn.ModuleDict({"0": dense})
        if moe:
            router = nn.ModuleDict({"gate": nn.Linear(8, 4, bias=False)})
            experts = nn.ModuleDict({"inner_experts": Experts()})
            inside = nn.ModuleDict({"router": router, "routed_experts": experts})
            self.layers["1"] = nn.ModuleDict({"moe": inside})
        self.norm = nn.RMSNorm(8)
        self.lm_head = nn.Linear(8, 16, bias=False)


@pytest.mark.parametrize("choice", ["dense", "moe"])
def test_torchtitan(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchtitan", "torchtitan.components"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "torchtitan.components.optimizer", titan)
    model = Titan(moe=choice == "moe")
    scope = run(block("torchtitan"), __name__="recipe")
    container = scope[choice].build(model_parts=[model])
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    container.step()
    (ours,) = (optimizer for optimizer in container if isinstance(optimizer, MARSM))
    found = {n: g["stacked"] for g in ours.param_groups for n in g["param_names"]}
    experts = {"layers.1.moe.routed_experts.inner_experts.w1_EFD": True}
    matrices = {"layers.0.attention.weight": False}
    assert found == ({**matrices, **experts} if choice == "moe" else matrices)
    assert not ours.describe().count("! ")

"""The templates of jobs that are not pretraining keep the protocol and train what they should."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mars_optim import param_groups
from mars_optim.cli.init import TEMPLATES
from mars_optim.experiment.plan import ARMS
from mars_optim.experiment.tasks import check_task, import_task
from mars_optim.experiment.training import build_optimizer

pytest.importorskip("peft")


@pytest.fixture(autouse=True)
def own_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules that a task's file loads are removed again."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield
    for name in ("finetune", "bandit"):
        sys.modules.pop(name, None)


def template(kind: str, name: str) -> Any:
    return import_task(f"{kind}.py:{name}", TEMPLATES / kind)


def roles(model: nn.Module) -> dict[str, set[str]]:
    """Names of the parameters that the optimizer gets, by kind."""
    return {g["kind"]: {name for name, _ in g["params"]} for g in param_groups(model)}


@pytest.mark.parametrize(
    ("kind", "name"), [("finetune", "Lora"), ("finetune", "Full"), ("bandit", "Bandit")]
)
def test_a_template_keeps_the_protocol(kind: str, name: str):
    check_task(template(kind, name))


def test_lora_trains_its_own_matrices_and_nothing_else():
    model = template("finetune", "Lora").build_model(1)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert roles(model) == {"matrix": trained}
    assert all(".lora_A." in n or ".lora_B." in n for n in trained)
    before = {n: p.clone() for n, p in model.named_parameters()}
    optimizer = build_optimizer(model, ARMS["nadamw-auto"], lr=1e-2)
    for _ in range(2):  # B starts at zero, so A gets a gradient from the second step on
        optimizer.zero_grad()
        model(input_ids=torch.arange(32)[None], labels=torch.arange(32)[None]).loss.backward()
        optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == trained


def test_weights_are_sorted_with_the_tied_head_as_embedding():
    model = template("finetune", "Full").build_model(1)
    found = roles(model)
    assert set(found) == {"matrix", "embedding", "vector"}
    assert found["embedding"] == {"model.embed_tokens.weight"}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert sum(map(len, found.values())) == len(list(model.parameters()))


def test_frozen_weights_of_a_checkpoint_stay_out():
    task = template("finetune", "Full")

    def frozen(model: nn.Module) -> nn.Module:
        model.get_input_embeddings().requires_grad_(False)
        return model

    task.prepared = frozen
    assert set(roles(task.build_model(1))) == {"matrix", "vector"}


def test_a_checkpoint_and_a_text_of_ones_own_are_taken(tmp_path: Path):
    make = type(template("finetune", "Full"))
    tiny = template("finetune", "Full").build_model(1)
    with torch.no_grad():
        tiny.model.norm.weight.fill_(0.5)
    tiny.save_pretrained(tmp_path / "checkpoint")
    (tmp_path / "mine.txt").write_text("To be, or not to be. " * 200)
    task = make(model=str(tmp_path / "checkpoint"), text=str(tmp_path / "mine.txt"))
    model = task.build_model(2)
    assert torch.equal(model.model.norm.weight, tiny.model.norm.weight)
    assert bytes(task.batch(1, 0, 0)[0].tolist()).decode()[:5] in "To be, or not to be. " * 2
    assert task.fingerprint != make().fingerprint
    assert len(task.held_out) == 420


def test_a_bandits_gradient_is_the_policy_gradient():
    task = template("bandit", "Bandit")
    model, batch = task.build_model(1), task.batch(1, 2, 0)
    loss = task.loss(model, batch)
    loss.backward()
    ours = [p.grad.clone() for p in model.parameters()]

    logits = model(batch["context"])
    chances = task.chances(batch["context"])
    total, rewards = torch.zeros(()), []
    for i in range(len(logits)):  # one prompt and one action after another
        actions = [int((logits[i] + g).argmax()) for g in batch["gumbel"][i]]
        reward = torch.stack(
            [(batch["luck"][i, k] < chances[i, a]).float() for k, a in enumerate(actions)]
        )
        advantage = (reward - reward.mean()) / (reward.std() + 1e-4)
        log_policy = F.log_softmax(logits[i], dim=0)
        total = total - sum(advantage[k] * log_policy[a] for k, a in enumerate(actions))
        rewards.append(reward)
    expected = torch.autograd.grad(total / batch["luck"].numel(), list(model.parameters()))
    for mine, wanted in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-7)
    assert loss.item() == pytest.approx(1 - torch.stack(rewards).mean().item())


def test_a_bandits_scores_are_expectations_over_its_policy():
    task = template("bandit", "Bandit")
    best = task.chances(task.held_out).max(dim=1)

    class Best(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1e3))

        def forward(self, context: torch.Tensor) -> torch.Tensor:
            return self.scale * task.chances(context)

    scores = task.evaluate(Best(), 4096)
    assert scores["reward"] == pytest.approx(best.values.mean().item(), abs=1e-3)
    assert scores["loss"] == 1 - scores["reward"]


@pytest.mark.slow
def test_a_bandit_learns():
    task = template("bandit", "Bandit")
    model = task.build_model(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    before = task.evaluate(model, 4096)["loss"]
    for step in range(300):
        optimizer.zero_grad()
        task.loss(model, task.batch(1, step, 0)).backward()
        optimizer.step()
    assert task.evaluate(model, 4096)["loss"] < 0.6 * before

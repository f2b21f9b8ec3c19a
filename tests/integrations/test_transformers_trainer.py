"""Under the Trainer of Hugging Face transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mars_optim import MARS, MARSM, MARSAdamW, MARSLion, param_groups
from mars_optim.integrations.transformers import GroupedMARS
from tests.support.hosts import gpt2_trainer
from tests.support.toy import assert_same, assert_same_model

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # the host's own are not ours to fix

CHOICES: dict[str, tuple[Any, dict[str, Any]]] = {
    "MARSAdamW": (MARSAdamW, {"lr": 3e-3}),
    "MARSLion": (MARSLion, {"lr": 3e-4}),
    "MARSM": (MARSM, {"lr": 3e-3}),
    "folded": (MARSAdamW, {"lr": 3e-3, "correction": "folded"}),
    "grouped": (GroupedMARS, {"rule": "muon", "lr": 3e-3, "lr_embedding": 1e-3, "eps": 1e-6}),
}


def make_trainer(folder: Path, choice: str, **arguments: Any) -> Any:
    """With GPT-2's dropout, a warmup, and a row of the log for each step."""
    log = {"logging_strategy": "steps", "logging_steps": 1}
    return gpt2_trainer(folder, CHOICES[choice], warmup_steps=2, **log, **arguments)


def bare(trainer: Any) -> MARS:
    """The optimizer inside Accelerate's wrapper."""
    optimizer = trainer.optimizer
    return optimizer if isinstance(optimizer, MARS) else optimizer.optimizer


@pytest.mark.slow_but_one
@pytest.mark.parametrize("choice", CHOICES)
def test_resumed_trainer_run_equals_uninterrupted_run(choice: str, tmp_path: Path) -> None:
    whole = make_trainer(tmp_path, choice)
    before = [p.detach().clone() for p in whole.model.parameters()]
    whole.train()
    assert not any(torch.equal(p, q) for p, q in zip(whole.model.parameters(), before, strict=True))

    resumed = make_trainer(tmp_path / "resumed", choice)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.state.global_step == 6
    assert_same_model(whole.model, resumed.model)
    assert_same(bare(whole).state_dict(), bare(resumed).state_dict())


@pytest.mark.slow_but_one
@pytest.mark.parametrize("choice", CHOICES)
def test_trainer_lowers_the_loss(choice: str, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, choice, max_steps=12)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < losses[0]


def test_trainer_groups_keep_decay_as_matrices_and_vectors(
    tmp_path: Path,
) -> None:
    trainer = make_trainer(tmp_path, "MARSAdamW")
    trainer.create_optimizer()
    rows = [
        (g["weight_decay"], g["gamma"], g["params"][0].ndim) for g in bare(trainer).param_groups
    ]
    assert rows == [(0.1, 0.025, 2), (0.0, 0.0, 1)]


def test_factory_sorts_the_model_as_param_groups_does(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, "grouped")
    trainer.create_optimizer()
    by_hand = MARS(param_groups(trainer.model, rule="muon", lr=3e-3, lr_embedding=1e-3), eps=1e-6)
    assert_same(by_hand.state_dict()["param_groups"], bare(trainer).state_dict()["param_groups"])
    assert [g["kind"] for g in bare(trainer).param_groups] == ["matrix", "embedding", "vector"]
    assert {g["eps"] for g in bare(trainer).param_groups} == {1e-6}


def test_factory_refuses_a_misspelt_option_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="gama"):
        GroupedMARS()(torch.nn.Linear(2, 2), gama=0.1)


def test_trainer_accumulates_and_runs_bf16_autocast(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, "grouped", bf16=True, gradient_accumulation_steps=2)
    trainer.train()
    states = list(bare(trainer).state.values())
    assert {int(state["step"]) for state in states} == {6}
    assert {value.dtype for state in states for value in state.values()} == {torch.float32}


def test_exact_form_under_trainer_without_closure_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHOICES, "exact", (MARSAdamW, {"correction": "exact"}))
    with pytest.raises(RuntimeError, match="correction='exact' needs"):
        make_trainer(tmp_path, "exact").train()


def test_trainer_knows_no_optim_called_mars(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mars"):
        make_trainer(tmp_path, "MARSAdamW", optim="mars")

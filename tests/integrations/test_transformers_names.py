"""Names in ``TrainingArguments(optim=...)``, and what else of its arguments reaches them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mars_optim import MARS
from tests.support.hosts import gpt2_trainer

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # the host's own are not ours to fix


def group_of(folder: Path, optim: str = "mars-adamw", **arguments: Any) -> dict[str, Any]:
    """The group of the matrices of the optimizer that the Trainer makes by a name."""
    from mars_optim.integrations.transformers import register

    register()
    trainer = gpt2_trainer(folder, None, optim=optim, **arguments)
    trainer.create_optimizer()
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    assert isinstance(optimizer, MARS)
    return optimizer.param_groups[0]


@pytest.mark.parametrize(
    ("arguments", "betas", "eps"),
    [
        ({}, (0.95, 0.99), 1e-8),
        ({"optim": "nadamw"}, (0.9, 0.95), 1e-8),
        ({"adam_beta2": 0.98, "adam_epsilon": 1e-5}, (0.95, 0.98), 1e-5),
        ({"adam_beta1": 0.8}, (0.8, 0.99), 1e-8),
        ({"optim_args": "beta1=0.9,beta2=0.999,eps=1e-6"}, (0.9, 0.999), 1e-6),
        ({"optim_args": "beta2=0.98", "adam_beta2": 0.98}, (0.95, 0.98), 1e-8),
    ],
)
def test_betas_and_epsilon_given_to_the_trainer_count(
    tmp_path: Path, arguments: dict[str, Any], betas: tuple[float, float], eps: float
) -> None:
    group = group_of(tmp_path, learning_rate=1e-3, **arguments)
    assert (group["lr"], tuple(group["betas"]), group["eps"]) == (1e-3, betas, eps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optim_args": "lr=5"}, "lr=5, but the Trainer's learning_rate is the one that counts"),
        ({"optim_args": "weight_decay=0.3"}, "weight_decay=0.3, but the Trainer's weight_decay"),
        ({"optim_args": "beta2=0.95", "adam_beta2": 0.98}, "beta2=0.95 and adam_beta2=0.98: give"),
        ({"optim_args": "beta1=2"}, r"betas\[0\]=2.0 must be in"),
        ({"optim_args": "betas=0.9"}, "betas=0.9: give beta1= and beta2="),
    ],
)
def test_what_contradicts_the_trainer_is_refused(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        group_of(tmp_path, **arguments)

"""The script of the authors and their text differ; each difference by its numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mars_optim.experiment.plan.arms import ARMS, Arm
from mars_optim.experiment.plan.training import TrainingPlan
from mars_optim.experiment.tasks import GPT
from mars_optim.experiment.training import arm_groups, build_optimizer, gradient_scale
from tests.support.regression import Regression, make_spec, record, rows_of

MUON_OF_2024 = replace(ARMS["muon"], rule="shampoo", lr=2e-2, lr_1d=3e-3, weight_decay=0.0)


class SmallNet(nn.Module):
    """A convolution of 4 x 3 x 3 x 3, a norm of 4 and a last layer of 2 x 4, without biases."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 2, bias=False)


BOTH = ("paper", "reference_code")


def small_gpt() -> GPT:
    return GPT(vocabulary=20, context=8, layers=1, width=16, heads=2)


def groups_of(model: nn.Module, arm: Arm, convention: Any) -> dict[str, dict[str, Any]]:
    """Name of the parameter -> its group; fails if one is claimed twice or not at all."""
    groups = arm_groups(model, arm, lr=arm.lr, convention=convention)
    named = [(name, group) for group in groups for name, _ in group["params"]]
    assert sorted(n for n, _ in named) == sorted(n for n, _ in model.named_parameters())
    return dict(named)


def corrected(model: nn.Module, arm: Arm, convention: Any) -> int:
    """Number of elements that MARS corrects."""
    groups = groups_of(model, arm, convention)
    return sum(p.numel() for n, p in model.named_parameters() if groups[n]["gamma"])


@pytest.mark.parametrize("arm", ["mars-adamw", "mars-lion", "mars-shampoo", "mars-adamw-exact"])
def test_paper_corrects_convolutions_and_code_only_last_layer(arm: str):
    head = 0 if arm == "mars-shampoo" else 2 * 4  # beside Newton-Schulz it has plain AdamW
    assert corrected(SmallNet(), ARMS[arm], "paper") == 4 * 27 + head
    assert corrected(SmallNet(), ARMS[arm], "reference_code") == 2 * 4


def test_code_steps_convolutions_by_adamw_with_vector_settings():
    arm = replace(ARMS["mars-adamw"], lr=0.1, lr_1d=0.003, weight_decay=0.5)
    text, script = (
        groups_of(SmallNet(), arm, convention) for convention in ("paper", "reference_code")
    )
    keys = ("lr", "weight_decay", "betas", "rule", "gamma", "clip")
    assert [text["conv.weight"][k] for k in keys] == [0.1, 0.5, (0.95, 0.99), "adamw", 0.025, 1.0]
    assert [script["conv.weight"][k] for k in keys] == [0.003, 0.1, (0.9, 0.95), "adamw", 0.0, None]
    assert [script["linear.weight"][k] for k in keys[:3]] == [0.1, 0.5, (0.95, 0.99)]


@pytest.mark.parametrize(
    ("arm", "decay"),
    [
        (ARMS["mars-adamw"], 0.1),
        (replace(ARMS["mars-adamw"], weight_decay_1d=0.3), 0.3),
        (MUON_OF_2024, 0.1),
        (replace(ARMS["mars-m"], weight_decay=0.01), 0.01),
        (ARMS["nadamw"], 0.0),
        (ARMS["lion"], 0.0),
        (ARMS["adamw"], 0.0),
    ],
)
def test_only_code_decays_vectors_unless_the_arm_says_otherwise(arm: Arm, decay: float):
    text, script = (
        groups_of(small_gpt(), arm, convention) for convention in ("paper", "reference_code")
    )
    assert text["norm.weight"]["weight_decay"] == arm.weight_decay_1d
    assert script["norm.weight"]["weight_decay"] == decay


def test_gain_without_gradient_is_decayed_in_code_only():
    arm = replace(ARMS["mars-adamw"], lr_1d=0.5)
    gains = {}
    for convention in ("paper", "reference_code"):
        model = small_gpt()
        optimizer = build_optimizer(model, arm, lr=1.0, convention=convention)  # type: ignore[arg-type]
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
        gains[convention] = model.norm.weight[0].item()
    assert gains["paper"] == 1.0
    assert gains["reference_code"] == pytest.approx(1 - 0.5 * 0.1)


@pytest.mark.parametrize("convention", ["paper", "reference_code"])
def test_mars_adamw_corrects_but_never_decays_embeddings(convention: str):
    groups = groups_of(small_gpt(), ARMS["mars-adamw"], convention)
    for name in ("wte.weight", "wpe.weight"):
        assert groups[name]["gamma"] == 0.025
        assert groups[name]["weight_decay"] == 0.0


def test_embeddings_go_to_muon_in_code_and_to_adamw_in_paper():
    text, script = (groups_of(small_gpt(), MUON_OF_2024, r) for r in ("paper", "reference_code"))
    assert (text["wte.weight"]["rule"], text["wte.weight"]["lr"]) == ("adamw", 3e-3)
    assert (script["wte.weight"]["rule"], script["wte.weight"]["lr"]) == ("shampoo", 2e-2)
    assert script["norm.weight"]["lr"] == 3e-3


def test_mars_m_embeddings_are_decayed_as_matrices_in_code_only():
    arm = replace(ARMS["mars-m"], lr=0.02, weight_decay=0.01)
    text, script = (
        groups_of(small_gpt(), arm, convention) for convention in ("paper", "reference_code")
    )
    assert (text["wte.weight"]["lr"], text["wte.weight"]["weight_decay"]) == (0.02, 0.0)
    assert (script["wte.weight"]["lr"], script["wte.weight"]["weight_decay"]) == (0.02, 0.01)
    assert script["wte.weight"]["rule"] == "adamw"


@pytest.mark.parametrize("arm", ["adamw", "nadamw", "lion", "torch-nadam"])
def test_adamw_and_its_relatives_are_sorted_alike_in_both(arm: str):
    for model in (SmallNet(), small_gpt()):
        text, script = (
            groups_of(model, ARMS[arm], convention) for convention in ("paper", "reference_code")
        )
        for name in text:
            assert {k: v for k, v in text[name].items() if k != "params"} == {
                k: v for k, v in script[name].items() if k != "params"
            }


def test_betas_and_rates_of_vectors_are_the_arms_own():
    arm = replace(ARMS["mars-adamw"], lr_1d=0.25, betas_1d=(0.8, 0.7), weight_decay_1d=0.05)
    group = groups_of(small_gpt(), arm, "paper")["norm.weight"]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.25, (0.8, 0.7), 0.05)


@pytest.mark.parametrize(
    ("training", "scale"),
    [
        (dict(accumulation=8), 1.0),
        (dict(accumulation=8, reference_accumulation=4), 1.0),
        (dict(accumulation=8, convention="reference_code"), 8.0),
        (dict(accumulation=32, reference_accumulation=4, convention="reference_code"), 4.0),
    ],
)
def test_paper_takes_mean_gradient_and_code_a_multiple(training: dict[str, Any], scale: float):
    assert gradient_scale(TrainingPlan(**training)) == scale


@pytest.mark.parametrize("arm", ["mars-adamw", "mars-adamw-exact"])
def test_the_scripts_clip_acts_on_the_sum_of_the_micro_batches(tmp_path: Path, arm: str):
    """A clip of 1 over 4 of them is the text's clip of 1/4; Adam itself is free of scale."""
    no_vectors = dict(weight_decay_1d=0.1)  # the text decays as the script then
    runs = {}
    for name, training in {
        "paper": dict(grad_clip=0.25),
        "reference_code": dict(grad_clip=1.0, convention="reference_code"),
        "text, clip 1": dict(grad_clip=1.0),
    }.items():
        spec = make_spec(arm=arm, accumulation=4, **training)
        spec = replace(spec, arm=replace(spec.arm, clip=0.0, **no_vectors))
        runs[name] = record(tmp_path / name, Regression(), spec)
    finals = {name: run.final_loss for name, run in runs.items()}
    assert finals["reference_code"] == pytest.approx(finals["paper"], rel=1e-5)
    assert finals["reference_code"] != pytest.approx(finals["text, clip 1"], rel=1e-3)
    norms = [rows_of(runs[name], "grad_norm")[1] for name in ("paper", "reference_code")]
    assert norms[1] == pytest.approx(4 * norms[0], rel=1e-6)
    losses = [rows_of(runs[name], "loss")[1] for name in ("paper", "reference_code")]
    assert losses[0] == pytest.approx(losses[1])  # the loss that is recorded stays a mean

"""Whether every layer keeps its size as a model is made wider."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim.errors import UserError
from mars_optim.experiment.plan.arms import ARMS
from mars_optim.experiment.tasks import TextTask, load_corpus
from mars_optim.experiment.transfer.coordinates import Layer, broken, coordinate_check
from mars_optim.optim.transfer import Ratios

WIDTHS = (16, 32, 64)


class Three(nn.Module):
    """Embedding, hidden layer, head: ``flaw`` leaves out one of the rules."""

    def __init__(self, width: int, flaw: str) -> None:
        super().__init__()
        m = width / WIDTHS[0]
        self.embed = nn.Embedding(8, width)
        self.hidden = nn.Linear(width, width)
        self.head = nn.Linear(width, 4, bias=False)
        self.multiplier = 1.0 if flaw == "logits" else 1.0 / m
        nn.init.normal_(self.hidden.weight, std=1.0 if flaw == "start" else width**-0.5)
        nn.init.normal_(self.head.weight, std=0.25)
        if flaw != "rates":
            self.transfer = Ratios(width=m)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.hidden(self.embed(tokens)).tanh() * self.multiplier)
        return logits


class Tokens:
    """A task for :func:`coordinate_check`, on random tokens."""

    def __init__(self, width: int, flaw: str = "") -> None:
        self.width, self.flaw = width, flaw

    def build_model(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return Three(self.width, self.flaw)

    def batch(self, seed: int, step: int, micro: int) -> Any:
        generator = torch.Generator().manual_seed(1000 * seed + step)
        return torch.randint(8, (32,), generator=generator)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(batch), batch % 4)


def check(flaw: str = "", arm: str = "adamw") -> list[Layer]:
    return coordinate_check({w: Tokens(w, flaw) for w in WIDTHS}, ARMS[arm], lr=0.01)  # type: ignore


def test_a_model_under_the_rules_passes() -> None:
    assert not broken(check())


@pytest.mark.parametrize(
    ("flaw", "layer", "why"),
    [
        ("start", "hidden", "starts like width^0.5"),
        ("rates", "hidden", "changes like width^0.8"),
        ("logits", "head", "starts like width^0.6"),
    ],
)
def test_each_rule_left_out_is_told_by_its_layer(flaw: str, layer: str, why: str) -> None:
    first, *_ = broken(check(flaw))
    assert first.name == layer
    assert first.why_not.startswith(why)


@pytest.mark.slow_but_one
@pytest.mark.parametrize("arm", ["adamw", "mars-adamw", "mars-lion", "muon", "mars-shampoo"])
def test_the_built_in_gpt_passes_with_its_base_only(arm: str) -> None:
    corpus = load_corpus("stdlib")

    def layers(base: int) -> list[Layer]:
        sizes = dict(context=32, layers=1, batch=8, base_width=base)
        tasks = {w: TextTask(corpus, width=w, heads=w // 16, **sizes) for w in (32, 64, 128)}
        return coordinate_check(tasks, ARMS[arm], lr=ARMS[arm].lr, seeds=(0, 1))

    assert not broken(layers(32))
    assert broken(layers(0))


def test_one_width_and_other_layers_are_refused() -> None:
    with pytest.raises(UserError, match="at least 4 times"):
        coordinate_check({16: Tokens(16)}, ARMS["adamw"], lr=0.01)  # type: ignore[dict-item]

    class Odd(Tokens):
        def build_model(self, seed: int) -> nn.Module:
            return nn.Sequential(super().build_model(seed))

    tasks: Any = {16: Tokens(16), 64: Odd(64)}
    with pytest.raises(UserError, match="is missing at some of the widths"):
        coordinate_check(tasks, ARMS["adamw"], lr=0.01)


def test_logits_may_fall_with_the_root_of_the_width() -> None:
    falling = Layer(name="head", start=-0.5, change=-0.4)
    assert not falling.why_not
    assert Layer(name="mlp", start=0.0, change=-0.4).why_not
    assert Layer(name="head", start=-0.5, change=-0.9).why_not

"""Each flaw of an optimizer is found, and a faithful one has none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from mars_optim.experiment.training.any_optimizer import AnyOptimizer
from mars_optim.experiment.training.contract import BESIDE, BLOCKS, Flaw, check_optimizer
from tests.support import flawed_optimizers as flawed

LR = 0.05

# the flaw, what is found, whether it blocks
FLAWS: dict[str, tuple[str, str]] = {
    "WritesGradient": ("writes the gradient", BESIDE),
    "ClearsGradient": ("takes the gradient away", BESIDE),
    "KeepsGradient": ("keeps a reference to the gradient", BESIDE),
    "FixedRate": ("lr does not reach the step", BLOCKS),
    "FirstGroupsRate": ("lr of a group is ignored", BESIDE),
    "RootOfRate": ("step is not in proportion to lr", BESIDE),
    "LateRate": ("lr comes a step late", BESIDE),
    "MovesAtZero": ("moves at lr = 0", BESIDE),
    "Forgets": ("a resumed run differs", BLOCKS),
    "SkipsMatrices": ("passes a matrix by", BLOCKS),
    "SkipsWide": ("passes a wide matrix by", BLOCKS),
    "MatricesOnly": ("refuses a vector", BLOCKS),
    "NeedsClosure": ("needs a closure", BESIDE),
    "DropsClosure": ("closure not as torch's", BESIDE),
    "Averages": ("has train() and eval()", BESIDE),
    "RoundsWhenJudging": ("evaluation moves the weights", BESIDE),
    "CoupledDecay": ("decays through the gradient", BESIDE),
    "DecayNotTimesRate": ("decays by another amount", BESIDE),
    "IgnoresDecay": ("weight decay does nothing", BESIDE),
    "DecaysAll": ("weight decay of a group is ignored", BESIDE),
    "Climbs": ("does not lower a quadratic", BLOCKS),
    "MakesFloat64": ("changes a parameter's kind", BLOCKS),
    "MovesMemory": ("moves a parameter's memory", BESIDE),
    "Unseeded": ("does not repeat", BESIDE),
    "Draws": ("draws torch's random numbers", BESIDE),
    "SharesState": ("shares state", BLOCKS),
    "NeedsAllGradients": ("fails without a gradient", BLOCKS),
    "RefusesZeros": ("fails on zero gradients", BLOCKS),
    "DividesByGradient": ("zero gradients make NaN", BLOCKS),
    "SharedCount": ("steps differently after a late gradient", BESIDE),
    "AssumesOrder": ("refuses other strides", BESIDE),
    "TakesAnything": ("takes any keyword", BESIDE),
    "OneGroup": ("refuses groups with lr of their own", BESIDE),
    "NeedsGraph": ("needs second derivatives", BLOCKS),
    "HoldsObjects": ("state is no plain data", BESIDE),
    "SetsPrecision": ("changes torch's settings", BESIDE),
}


@pytest.fixture(autouse=True)
def _settings_as_before() -> Iterator[None]:
    precision = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(precision)


def found(name: str, **options: bool) -> list[Flaw]:
    return check_optimizer(AnyOptimizer(getattr(flawed, name), LR), **options)


def test_a_faithful_optimizer_has_no_flaw():
    assert found("Faithful") == []


@pytest.mark.parametrize("name", ["AdamW", "Adafactor", "SGD"])
def test_torchs_own_have_no_flaw(name: str):
    assert check_optimizer(AnyOptimizer(getattr(torch.optim, name), LR)) == []


@pytest.mark.slow_but_one
@pytest.mark.parametrize("name", FLAWS)
def test_the_flaw_is_found(name: str):
    told = {flaw.name: flaw.severity for flaw in found(name)}
    wanted, severity = FLAWS[name]
    assert told.get(wanted) == severity, told


def test_every_flaw_that_is_written_down_is_tried():
    written = {
        k
        for k, v in vars(flawed).items()
        if isinstance(v, type) and v.__module__ == flawed.__name__
    }
    assert written - {"Faithful", "NoRate", "TakesNames"} == set(FLAWS)


def test_vectors_block_nothing_where_it_gets_matrices_only():
    assert [f.severity for f in found("MatricesOnly", matrices_only=True)] == [BESIDE] * 3


def test_a_flaw_is_one_sentence_in_one_line():
    texts = [f.text for name in ("MatricesOnly", "Forgets", "FixedRate") for f in found(name)]
    assert all(text.endswith(".") and "\n" not in text for text in texts)

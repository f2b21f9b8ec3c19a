"""gamma="auto" around another optimizer: where its step is an average of gradients."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim import MARSM, variance_reduce
from mars_optim.optim.tools.wrap import VarianceReduction
from tests.support.cases import copies, same
from tests.support.gamma_oracle import EVERY, FIRST, GAIN, HIGHEST, RATE

SHAPES = [(6, 4), (5, 9), (7,)]


def gradients(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    draw = [torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES]
    return [g + torch.full_like(g, i + 0.04 * step).sin() for i, g in enumerate(draw)]


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(g) for g in gradients(99)]


def train(params: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        for p, g in zip(params, gradients(step), strict=False):
            p.grad = g
        optimizer.step()


def gamma_of(optimizer: torch.optim.Optimizer, group: int = 0) -> float:
    return float(optimizer.param_groups[group]["gamma_now"])


def expected(grads: list[list[Tensor]], beta: float) -> float:
    """By the next gradient with P = 1, as loops."""
    gamma, agreement, averages, turns = 0.1, 0.0, None, None
    for t, of_step in enumerate(grads, 1):
        weight = (1 - beta) / (1 - beta**t)
        if averages is None or turns is None:
            averages, turns = [g.clone() for g in of_step], [0 * g for g in of_step]
        else:
            products = [g * u for g, u in zip(of_step, turns, strict=True)]
            size = sum(float(p.abs().sum()) for p in products)
            agreement += sum(float(p.sum()) for p in products) / size if size else 0.0
            averages = [a + weight * (g - a) for a, g in zip(averages, of_step, strict=True)]
            turns = [g - a for a, g in zip(averages, of_step, strict=True)]
        if t >= FIRST and t % EVERY == 0:
            gamma += min(RATE, max(-RATE, GAIN * agreement))
            gamma, agreement = min(HIGHEST, max(0.0, gamma)), 0.0
    return gamma


def test_sgd_chooses_gamma_by_its_own_derivative() -> None:
    params = parameters()
    optimizer = torch.optim.SGD(params, lr=1e-2, momentum=0.9)
    variance_reduce(optimizer, gamma="auto")
    train(params, optimizer, range(50))
    wanted = expected([gradients(t)[:2] for t in range(50)], 0.9)
    assert gamma_of(optimizer) == pytest.approx(wanted, rel=1e-9)
    assert wanted != 0.1


def test_the_step_is_that_of_the_gamma_in_force() -> None:
    """With momentum m and lr r: m b + c, with c_t = g + k (g - g_{t-1})."""
    params = parameters()[:1]
    optimizer = torch.optim.SGD(params, lr=1e-2, momentum=0.9)
    variance_reduce(optimizer, gamma="auto")
    x, buffer, last = params[0].detach().clone(), 0.0, torch.zeros(SHAPES[0], dtype=torch.float64)
    for step in range(45):
        gain = 0.9 / (1 - 0.9) * (gamma_of(optimizer) if step else 0.1)
        g = gradients(step)[0]
        buffer = 0.9 * buffer + g + gain * (g - last)
        x, last = x - 1e-2 * buffer, g
        train(params, optimizer, range(step, step + 1))
    torch.testing.assert_close(params[0].detach(), x, rtol=1e-10, atol=1e-12)


def test_muon_chooses_the_gamma_of_mars_m() -> None:
    """Newton-Schulz rounds differently in the two, and gamma does not depend on it."""
    params, others = parameters()[:2], parameters()[:2]
    optimizer = torch.optim.Muon(params, lr=1e-2, momentum=0.9, nesterov=False)
    variance_reduce(optimizer, gamma="auto")
    ours = MARSM(others, lr=1e-2, betas=(0.9, 0.99), gamma="auto")
    train(params, optimizer, range(50))
    train(others, ours, range(50))
    wanted = float(ours.param_groups[0]["gamma_now"])
    assert gamma_of(optimizer) == pytest.approx(wanted, rel=1e-9) != 0.1


@pytest.mark.parametrize("way", ["checkpoint", "copy"])
def test_a_run_goes_on_with_its_gamma_to_the_same_bits(way: str) -> None:
    params = parameters()
    optimizer: Any = torch.optim.SGD(params, lr=1e-2, momentum=0.9)
    variance_reduce(optimizer, gamma="auto", optimize_1d=True)
    train(params, optimizer, range(26))
    if way == "copy":
        others, resumed = copy.deepcopy((params, optimizer))
    else:
        buffer = io.BytesIO()
        torch.save(optimizer.state_dict(), buffer)
        buffer.seek(0)
        others = [nn.Parameter(p.detach().clone()) for p in params]
        resumed = torch.optim.SGD(others, lr=1e-2, momentum=0.9)
        variance_reduce(resumed, gamma="auto", optimize_1d=True)
        resumed.load_state_dict(torch.load(buffer, weights_only=True))
        resumed.load_state_dict(resumed.state_dict())  # and once more before any step
    train(params, optimizer, range(26, 55))
    train(others, resumed, range(26, 55))
    assert gamma_of(resumed) == gamma_of(optimizer) != 0.1
    assert same(copies(params), copies(others))


def _sgd(**options: Any) -> Any:
    return torch.optim.SGD(parameters(), lr=0.1, **options)


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (
        lambda: torch.optim.AdamW(parameters()),
        {},
        "does not take AdamW: gamma would act on more than the step",
    ),
    (lambda: torch.optim.Adafactor(parameters()), {"beta1": 0.9}, "does not take Adafactor"),
    (
        lambda: _sgd(momentum=0.9, nesterov=True),
        {},
        "nesterov=True, which already is the correction",
    ),
    (lambda: _sgd(), {}, "needs SGD with a momentum above 0"),
    (lambda: _sgd(momentum=0.9), {"clip": 1.0}, "clip=1.0 cannot be combined with gamma='auto'"),
]


@pytest.mark.parametrize(("make", "options", "words"), REFUSED, ids=[row[-1] for row in REFUSED])
def test_where_gamma_acts_on_more_it_is_refused(make: Any, options: Any, words: str) -> None:
    optimizer = make()
    with pytest.raises(ValueError, match=words):
        variance_reduce(optimizer, gamma="auto", **options)
    assert VarianceReduction.of(optimizer) is None

"""Dtypes, layouts and groups that the noise is measured in, and those that are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim.gradient_noise import noise_scale

BATCHES = 256


def batch(i: int) -> Tensor:
    """A direction of norm 20 and noise of norm 1, in numbers that bfloat16 holds."""
    noise = torch.randn(20, 20, generator=torch.Generator().manual_seed(i))
    return (1.0 + 0.05 * noise).bfloat16()


def loss(weight: Tensor) -> Callable[[nn.Module, Tensor], Tensor]:
    return lambda _model, x: (weight * x.to(weight.dtype)).sum()


def measured(weight: nn.Parameter, params: Any) -> Any:
    batches = (batch(i) for i in range(BATCHES))
    return noise_scale(nn.Module(), loss(weight), batches, [{"params": params}])[-1]


def test_bfloat16_gradients_are_summed_as_precisely_as_float64_ones():
    grads = torch.stack([batch(i).double().flatten() for i in range(BATCHES)])
    true = float(grads.var(dim=0, unbiased=True).sum())
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        weight = nn.Parameter(torch.ones(20, 20, dtype=dtype))
        found = measured(weight, [weight])
        assert found.noise.value == pytest.approx(true, rel=1e-3), dtype
        assert found.noise.low < true < found.noise.high


def test_a_generator_and_a_bare_tensor_are_parameters_too():
    weight = nn.Parameter(torch.ones(20, 20))
    expected = measured(weight, [weight])
    for params in ((p for p in [weight]), weight):
        found = measured(weight, params)
        assert (found.parameters, found.noise) == (400, expected.noise)


def test_a_complex_parameter_counts_with_both_parts():
    weight = nn.Parameter(torch.ones(3, dtype=torch.complex64))

    def loss(_model: nn.Module, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        re, im = torch.randn(2, 3, generator=generator)
        return (weight.real * re + 2 * weight.imag * im).sum()

    found = noise_scale(nn.Module(), loss, range(2000), [{"params": [weight]}])[-1]
    assert found.noise.value == pytest.approx(3 * (1 + 4), rel=0.1)


def test_a_sparse_gradient_is_measured_as_a_dense_one():
    found = []
    for sparse in (False, True):
        torch.manual_seed(0)
        table = nn.Embedding(10, 4, sparse=sparse)
        rows = noise_scale(
            table,
            lambda m, i: m(torch.tensor([i % 10, (3 * i) % 7])).square().sum(),
            range(40),
            [{"params": table.parameters()}],
        )
        found.append(rows[-1].noise.value)
    assert found[0] == pytest.approx(found[1], rel=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_refused(bad: float):
    weight = nn.Parameter(torch.ones(2))
    batches = [torch.tensor([1.0, bad if i == 5 else 1.0]) for i in range(9)]
    with pytest.raises(ValueError, match=r"gradient of a batch \(loss .* is not finite"):
        noise_scale(nn.Module(), loss(weight), batches, [{"params": [weight]}])


def test_groups_that_cannot_be_measured_are_refused_with_the_way_out():
    weight = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="groups list a parameter twice"):
        noise_scale(nn.Module(), loss(weight), [], [{"params": [weight, weight]}])
    groups: Any = [weight]
    with pytest.raises(TypeError, match="groups must be dicts with 'params'"):
        noise_scale(nn.Module(), loss(weight), [], groups)

"""Signal, noise and noise scale: unbiased, and within their intervals at the stated rate."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
import torch

from mars_optim.gradient_noise import Blocks, noise_scale
from mars_optim.gradient_noise.dots import Dots
from mars_optim.gradient_noise.intervals import jackknife, jackknife_ratio
from tests.support.quadratic import CURVATURE, Quadratic, draw, loss_fn, variance_at

RUNS = 400


def samples_of(mean: float, *, seed: int, count: int = 24, blocks: int = 8) -> Dots:
    """``count`` vectors of 40 elements, unequal variances, tr Var = sum(1 .. 40) / 20 = 41."""
    generator = torch.Generator().manual_seed(seed)
    sums = Blocks(blocks, [[0, 1]])
    scale = (torch.arange(1, 41, dtype=torch.float64) / 20).sqrt()
    for i in range(count):
        x = mean + scale * torch.randn(40, dtype=torch.float64, generator=generator)
        sums.add(i % blocks, [x[:10].reshape(2, 5), x[10:]])
    return sums.dots()[0]


@pytest.mark.slow_but_one
@pytest.mark.parametrize("mean", [0.0, 0.1, 0.5, 3.0])
def test_signal_and_noise_are_unbiased_and_intervals_cover(mean: float):
    truth = {"signal": 40 * mean**2, "noise": 41.0}
    found: dict[str, list[float]] = {"signal": [], "noise": []}
    inside = dict.fromkeys(truth, 0)
    for seed in range(RUNS):
        dots = samples_of(mean, seed=seed)
        for name, statistic in (("signal", Dots.squared_mean), ("noise", Dots.variance)):
            e = jackknife(statistic, [dots], 0.9)
            found[name].append(e.value)
            inside[name] += e.low <= truth[name] <= e.high
    for name, values in found.items():
        error = statistics.stdev(values) / math.sqrt(RUNS)
        assert abs(statistics.fmean(values) - truth[name]) < 3.5 * error
        # 0.9 within 3.5 standard errors of the simulation; wider only where the signal is 0
        assert 0.845 <= inside[name] / RUNS <= (1.0 if mean < 0.5 else 0.955), name


@pytest.mark.slow_but_one
@pytest.mark.parametrize("mean", [0.1, 0.5, 3.0])
def test_noise_scale_interval_covers_even_without_visible_signal(mean: float):
    truth, inside, unbounded = 41.0 / (40 * mean**2), 0, 0
    for seed in range(RUNS):
        e = jackknife_ratio(Dots.variance, Dots.squared_mean, [samples_of(mean, seed=seed)], 0.9)
        assert e.low <= e.value <= e.high
        inside += e.low <= truth <= e.high
        unbounded += math.isinf(e.high)
    assert 0.845 <= inside / RUNS <= (0.955 if mean >= 0.5 else 1.0)
    assert (unbounded > 0) == (mean < 0.5)


def test_noise_per_group_and_total_matches_the_drawn_batches():
    model = Quadratic()
    groups = [{"params": [("x", model.x)]}, {"params": [model.y, model.unused], "kind": "b"}]
    rows = noise_scale(
        model, loss_fn, map(draw, range(800)), groups, batch_size=32, blocks=20, confidence=0.999
    )
    assert [r.kind for r in rows] == ["vector", "b", "total"]
    assert [r.parameters for r in rows] == [6, 10, 16]
    x = model.x.detach()
    signal, noise = float((CURVATURE * x).square().sum()), float(variance_at(x))
    for row, factor in zip(rows, (1, 1, 2), strict=True):
        assert row.batches == 800
        for e, true in (
            (row.signal, factor * signal),
            (row.noise, factor * noise),
            (row.scale, noise / signal),
            (row.noise_per_example, 32 * factor * noise),
            (row.scale_in_examples, 32 * noise / signal),
        ):
            assert e.low < true < e.high
            assert e.high - e.low < true


def test_noise_measurement_leaves_model_and_random_state_alone():
    model = Quadratic(dropout=0.5)
    model(draw(1)).backward()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    grad, memory = model.x.grad, model.x.grad.clone()
    random = torch.get_rng_state()

    def broken():
        yield from map(draw, range(5))
        raise KeyError("data")

    groups = [{"params": list(model.parameters())}]
    noise_scale(model, loss_fn, map(draw, range(8)), groups)
    with pytest.raises(KeyError):
        noise_scale(model, loss_fn, broken(), groups)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.x.grad is grad
    assert torch.equal(grad, memory)
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 2}, "blocks=2 must be at least 3"),
        ({"blocks": 9}, "batches holds 8"),
        ({"blocks": 3.5}, "blocks=3.5 must be a whole number"),
        ({"confidence": 95}, "confidence=95 must be above 0 and below 1, such as 0.95"),
        ({"confidence": math.nan}, "confidence=nan must be above 0 and below 1"),
        ({"confidence": "0.9"}, "confidence='0.9' must be a number"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"batch_size": "a"}, "batch_size='a' must be a whole number"),
    ],
)
def test_what_gives_no_interval_or_no_unit_is_refused(options: dict[str, Any], message: str):
    model = Quadratic()
    with pytest.raises(ValueError, match=message):
        noise_scale(model, loss_fn, map(draw, range(8)), [{"params": [model.x]}], **options)


def test_a_frozen_parameter_counts_with_a_gradient_of_0():
    model = Quadratic()
    groups = [{"params": [model.x]}, {"params": [model.y]}]
    whole = noise_scale(model, loss_fn, map(draw, range(8)), groups)
    model.y.requires_grad_(False)
    frozen = noise_scale(model, loss_fn, map(draw, range(8)), groups)
    assert frozen[0] == whole[0]
    assert frozen[1].noise.value == frozen[1].signal.value == 0.0
    assert not model.y.requires_grad
    model.x.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter with requires_grad=True"):
        noise_scale(model, loss_fn, map(draw, range(8)), groups)

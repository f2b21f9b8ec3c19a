"""What steps tell of noise, signal, correction and clip."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mars_optim import MARS, MARSM

SHAPE, SIGNAL, NOISE, STEPS = (50, 40), 0.02, 0.05, 400
WAYS: dict[str, dict[str, Any]] = {
    "native": {},
    "foreach": {"foreach": True},
    "torch's fused": {"fused": True, "state_dtype": torch.float32},
    "native without a clip": {"clip": None},
    "muon": {"rule": "muon", "ns_steps": 1},
    "bfloat16 history": {"last_grad_dtype": torch.bfloat16},
    "float64": {"state_dtype": torch.float64},
}


def train(optimizer: MARS, params: list[nn.Parameter], *, steps: int = STEPS) -> None:
    """A constant signal in independent noise."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        for p in params:
            p.grad = SIGNAL + NOISE * torch.randn(p.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_noise_and_signal_are_those_that_were_put_in(way: dict[str, Any]) -> None:
    param = nn.Parameter(torch.zeros(SHAPE))
    optimizer = MARS([param], **{"lr": 0.0, "gamma": 0.1, **way})
    optimizer.measure()
    train(optimizer, [param])
    (found,) = optimizer.telemetry()
    size = param.numel()
    noise, signal = size * NOISE**2, size * SIGNAL**2
    assert found.steps == STEPS - 1  # the first has no gradient before it
    assert found.noise == pytest.approx(noise, rel=0.02)
    assert found.signal == pytest.approx(signal, rel=0.05)
    assert found.noise_scale == pytest.approx(noise / signal, rel=0.06)
    assert found.gradient == pytest.approx(math.sqrt(noise + signal), rel=0.02)
    assert found.cosine == pytest.approx(signal / (signal + noise), rel=0.06)
    k = 0.1 * 0.95 / 0.05
    assert found.correction_ratio == pytest.approx(k * math.sqrt(2 * noise) / found.gradient, 0.02)
    assert found.clip_rate == (0.0 if way.get("clip", 1.0) is None else 1.0)


def test_clip_rate_is_the_share_of_tensors_that_were_clipped() -> None:
    params = [nn.Parameter(torch.zeros(2, 2)) for _ in range(4)]
    optimizer = MARS(params, gamma=0.0, clip=1.0)
    optimizer.measure()
    for _ in range(3):
        for i, p in enumerate(params):
            p.grad = torch.full_like(p, 5.0 if i == 2 else 0.1)
        optimizer.step()
    (found,) = optimizer.telemetry()
    assert found.clip_rate == 0.25


def test_reading_starts_anew_and_groups_without_history_say_nan() -> None:
    params = [nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(4))]
    optimizer = MARSM(params)
    optimizer.measure()
    train(optimizer, params, steps=3)
    assert [g.steps for g in optimizer.telemetry()] == [2, 3]
    assert optimizer.telemetry() == []
    train(optimizer, params, steps=2)
    matrix, vector = optimizer.telemetry()
    assert (matrix.steps, vector.steps) == (2, 2)
    assert math.isnan(vector.noise)
    assert vector.gradient > 0.0


def test_nothing_is_told_before_it_is_asked_for() -> None:
    optimizer = MARS([nn.Parameter(torch.zeros(3, 2))])
    with pytest.raises(RuntimeError, match=r"call optimizer.measure\(\) before"):
        optimizer.telemetry()


def test_measuring_changes_no_step() -> None:
    ends = []
    for measured in (False, True):
        params = [nn.Parameter(torch.ones(5, 4)), nn.Parameter(torch.ones(6))]
        optimizer = MARS(params, gamma=0.3)
        if measured:
            optimizer.measure()
        train(optimizer, params, steps=5)
        ends.append(params)
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_a_scaler_does_not_scale_what_is_told() -> None:
    told = []
    for scale in (None, 256.0):
        param = nn.Parameter(torch.ones(3, 2))
        optimizer = MARS([param], gamma=0.3)
        optimizer.measure()
        for t in range(3):
            param.grad = torch.full_like(param, (t + 1.0) * (scale or 1.0))
            if scale:
                optimizer.grad_scale = torch.tensor(scale)
            optimizer.step()
        told.append(dataclasses.asdict(optimizer.telemetry()[0]))
    assert told[0] == pytest.approx(told[1])


@pytest.mark.parametrize("options", [{}, {"rule": "muon"}, {"correction": "folded"}], ids=str)
def test_measuring_never_waits_for_an_accelerator(options: dict[str, Any]) -> None:
    with FakeTensorMode(), torch.no_grad():
        param = nn.Parameter(torch.empty(3, 2, device="cuda"))
        optimizer = MARS([param], **options)
        optimizer.measure()
        for _ in range(2):
            param.grad = torch.empty_like(param)
            optimizer.step()

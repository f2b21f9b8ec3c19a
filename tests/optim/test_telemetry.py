"""Noise, signal, correction and clip, as steps show them."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mars_optim import MARS, MARSM
from mars_optim.optim import correction
from mars_optim.optim.backends import base
from mars_optim.optim.telemetry import LL, SUMS, Telemetry, _Totals
from tests.support.cases import needs_compiler

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
            p.grad = (SIGNAL + NOISE * torch.randn(p.shape, generator=generator)).to(p.dtype)
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


def test_telemetry_measures_every_n_steps_and_skips_the_rest() -> None:
    param = nn.Parameter(torch.zeros(SHAPE))
    optimizer = MARS([param], lr=0.0)
    optimizer.measure(every=4)
    train(optimizer, [param], steps=3)
    assert optimizer.telemetry() == []
    train(optimizer, [param], steps=397)
    (found,) = optimizer.telemetry()
    assert found.steps == 100
    assert found.noise == pytest.approx(param.numel() * NOISE**2, rel=0.03)
    optimizer.measure()  # from now on in each
    train(optimizer, [param], steps=5)
    assert optimizer.telemetry()[0].steps == 5


@pytest.mark.parametrize("every", [0, -1, 1.5, True])
def test_an_impossible_every_is_refused(every: Any) -> None:
    with pytest.raises(ValueError, match=r"every=.* must be a whole number of at least 1"):
        MARS([nn.Parameter(torch.zeros(3, 2))]).measure(every)


@given(st.integers(1, 70), st.integers(1, 40), st.lists(st.integers(1, 40)))
def test_a_checkpoint_in_between_changes_no_bit(steps: int, tensors: int, saved: list[int]) -> None:
    generator = torch.Generator().manual_seed(steps)
    whole, resumed = Telemetry(every=2), Telemetry(every=2)
    for step in range(steps):
        sums = torch.rand(tensors, SUMS, generator=generator, dtype=torch.float64)
        scales = torch.rand(tensors, generator=generator, dtype=torch.float64) * 2
        for telemetry in (whole, resumed):
            telemetry.begin_step()
            if telemetry.is_due:
                telemetry.add(0, 0, sums, scales, shards=None, paired=True)
        if step in saved:
            kept = json.loads(json.dumps(resumed.to_json()))
            resumed = Telemetry(every=2)
            resumed.from_json(kept)
    assert whole.to_json() == resumed.to_json()


@given(st.lists(st.integers(1, 20), min_size=1), st.booleans(), st.booleans())
def test_numbers_on_a_cpu_have_the_bits_of_tensors(
    turns: list[int], clips: bool, paired: bool
) -> None:
    generator = torch.Generator().manual_seed(len(turns))
    by_numbers, by_tensors = (_Totals(None, (paired, clips, 3)) for _ in range(2))
    by_tensors.total = torch.zeros(SUMS + 2, dtype=torch.float64)
    for steps in turns:
        readings = []
        for _ in range(steps):
            sums = torch.rand(3, SUMS, generator=generator, dtype=torch.float64)
            sums[:, LL] *= float(sums[0, 0] > 0.3)  # some steps have no g_{t-1}
            scales = torch.rand(3, generator=generator, dtype=torch.float64) * 2
            readings.append((sums, scales if clips else None, None, paired))
        by_numbers.add(readings)
        by_tensors.add(readings)
    assert isinstance(by_tensors.total, torch.Tensor)
    assert by_numbers.numbers() == by_tensors.numbers()


def test_group_with_changing_tensors_counts_each_step_by_its_own() -> None:
    params = [nn.Parameter(torch.zeros(2, 2)) for _ in range(2)]
    optimizer = MARS(params, gamma=0.0, clip=1.0)
    optimizer.measure()
    for step in range(6):
        params[0].grad = torch.full((2, 2), 5.0)
        params[1].grad = torch.full((2, 2), 0.1) if step % 3 == 0 else None
        optimizer.step()
    telemetry = optimizer._runtime["telemetry"]
    assert telemetry is not None
    assert len(telemetry.to_json()["buckets"]) == 2  # with one tensor and with two, not six
    (found,) = optimizer.telemetry()
    assert found.steps == 6
    assert found.clip_rate == pytest.approx(6 / 8)
    assert found.gradient == pytest.approx(math.sqrt((6 * 100 + 2 * 0.04) / 6))


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


@pytest.mark.parametrize("options", [{}, {"clip_over": "global"}, {"state_dtype": torch.float64}])
def test_the_plain_loop_tells_what_the_lists_tell(options: dict[str, Any]) -> None:
    told = []
    for foreach in (True, False):
        params = [
            nn.Parameter(torch.zeros(8, 4)),
            nn.Parameter(torch.zeros(4, 4, dtype=torch.double)),
        ]
        optimizer = MARS(params, lr=0.1, foreach=foreach, **options)
        optimizer.measure()
        train(optimizer, params, steps=5)
        (found,) = optimizer.telemetry()
        told.append({k: v for k, v in dataclasses.asdict(found).items() if k != "kind"})
    assert told[1] == pytest.approx(told[0], rel=1e-5)
    assert told[0]["steps"] == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("way", [{}, {"foreach": True}, {"foreach": False}], ids=str)
def test_a_plain_step_tells_the_norm_of_each_gradient(
    way: dict[str, Any], dtype: torch.dtype
) -> None:
    params = [nn.Parameter(torch.ones(6, 5, dtype=dtype)), nn.Parameter(torch.ones(7, dtype=dtype))]
    optimizer = MARS(params, gamma=0.0, clip=None, optimize_1d=True, **way)
    optimizer.measure()
    squares = []
    for step in range(5):
        for p in params:
            p.grad = torch.full_like(p, 0.25 * step)
        squares.append(37 * (0.25 * step) ** 2)
        optimizer.step()
    (found,) = optimizer.telemetry()
    assert (found.steps, found.tensors, found.clip_rate) == (5, 2, 0.0)
    assert math.isnan(found.signal)
    assert found.gradient**2 == pytest.approx(sum(squares) / 5, rel=1e-6)


@needs_compiler
@pytest.mark.parametrize("rule", ["muon", "shampoo"])
def test_the_clip_and_what_is_told_take_one_pass(
    rule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def second_pass(*args: Any) -> None:
        raise AssertionError("a second pass over the gradients")

    for module, name in ((correction, "norms_of"), (base, "sums_of"), (correction, "tensor_norm")):
        monkeypatch.setattr(module, name, second_pass)
    params = [nn.Parameter(torch.ones(5, 4)), nn.Parameter(torch.ones(6))]
    optimizer = MARS(params, rule=rule, gamma=0.3)
    optimizer.measure()
    train(optimizer, params, steps=5)
    matrices, vectors = optimizer.telemetry()
    assert (matrices.steps, vectors.steps) == (4, 5)
    assert matrices.clip_rate > 0

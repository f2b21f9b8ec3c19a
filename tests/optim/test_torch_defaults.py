"""torch's default device and dtype are for the user's tensors: a step does not depend on them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from mars_optim.gradient_noise.dots import Blocks
from mars_optim.optim.backends.cuda import triton_tables
from tests.support.cases import BACKENDS, OPTIMIZERS, make_grads, make_params, same


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


DEFAULTS: dict[str, Any] = {
    "device": lambda: torch.device("meta"),
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
}
WAYS: dict[str, dict[str, Any]] = {
    **BACKENDS,
    "plain": {"gamma": 0.0},
    "state in bfloat16": {"state_dtype": torch.bfloat16},
    "stochastic rounding": {"stochastic_rounding": True, "state_dtype": torch.float32},
    "cautious": {"cautious": True},
    "over all": {"clip_over": "global"},
    "vectors too": {"optimize_1d": True},
}
# Every optimizer as it comes, and every way with one of them.
PAIRS = {
    **{name: (make, {}) for name, make in OPTIMIZERS.items()},
    **{name: (OPTIMIZERS["MARSAdamW-approx"], way) for name, way in WAYS.items()},
}


def result(make: Any, default: Any, dtype: torch.dtype, **options: Any) -> list[Any]:
    """All that a run leaves, of an optimizer that is made, measured, saved and loaded meanwhile."""
    params = make_params(dtype=dtype)
    grads = [make_grads(params, step) for step in range(6)]
    with default():
        optimizer = make(params, **options)
        optimizer.measure()
        for step in range(3):
            for param, grad in zip(params, grads[step], strict=True):
                param.grad = grad
            optimizer.step()
        memory, saved = optimizer.memory(), optimizer.state_dict()
        told = [str(x) for x in optimizer.telemetry()]
        resumed = make(params, **options)
        resumed.measure()
        resumed.load_state_dict(saved)
        resumed.remember(memory)
        assert resumed.describe()
        for step in range(3, 6):
            for param, grad in zip(params, grads[step], strict=True):
                param.grad = grad
            resumed.step()
        told += [str(x) for x in resumed.telemetry()]
    tensors = [p.detach() for p in params]
    for param in params:
        tensors += resumed.state[param].values()
    assert all(x.device.type == "cpu" for x in tensors)
    return [told, tensors]


@pytest.mark.parametrize("default", DEFAULTS.values(), ids=DEFAULTS)
@pytest.mark.parametrize(("make", "way"), PAIRS.values(), ids=PAIRS)
def test_a_run_is_the_same_under_any_default(make: Any, way: dict[str, Any], default: Any) -> None:
    dtype = torch.bfloat16 if "stochastic_rounding" in way else torch.float32
    try:
        told, tensors = result(make, contextlib.nullcontext, dtype, **way)
    except ValueError as refusal:
        pytest.skip(str(refusal))
    told_there, tensors_there = result(make, default, dtype, **way)
    assert told_there == told
    assert same(tensors_there, tensors)
    assert [x.dtype for x in tensors_there] == [x.dtype for x in tensors]


@pytest.mark.parametrize("schedule", ["auto", "least_error", "lr"])
def test_a_chosen_gamma_is_the_same_under_another_default_device(schedule: str) -> None:
    ends = []
    for default in (contextlib.nullcontext, DEFAULTS["device"]):
        params = make_params([(5, 4)], dtype=torch.float32)
        grads = [make_grads(params, step) for step in range(45)]
        make = OPTIMIZERS["MARSAdamW-folded"]
        with default():
            optimizer = make(params, gamma_schedule=schedule)
            for of_step in grads:
                params[0].grad = of_step[0]
                optimizer.step()
            memory = optimizer.memory()
            optimizer.remember(memory)
        ends.append((memory, params[0].detach()))
    assert ends[0][0] == ends[1][0]
    assert torch.equal(ends[0][1], ends[1][1])


def test_tables_of_addresses_are_made_on_the_cpu_first() -> None:
    params = [torch.ones(3), torch.ones(5000)]
    states = [{"step": torch.tensor(0.0), "exp_avg": torch.ones_like(x)} for x in params]
    with torch.device("meta"):
        tables = triton_tables.tables_of(params, states)
        found, _ = triton_tables.addresses(params)
    assert tables.sizes[:2].tolist() == [3, 5000]
    assert found.tolist() == [x.data_ptr() for x in params]


def test_noise_is_added_up_on_the_cpu() -> None:
    vectors = [torch.full((4,), float(i)) for i in range(3)]
    with torch.device("meta"):
        blocks = Blocks(3, [[0]])
        for i, vector in enumerate(vectors):
            blocks.add(i, [vector])
        (dots,) = blocks.dots()
        assert dots.without(0).counts.tolist() == [1.0, 1.0]
    assert dots.gram[1, 2] == 8.0


def test_vectors_step_alike_under_a_default_device_from_start() -> None:
    ends = []
    for default in (contextlib.nullcontext, DEFAULTS["device"]):
        params: list[nn.Parameter] = make_params(dtype=torch.float32)
        grads = make_grads(params, 0)
        with default():
            optimizer = OPTIMIZERS["MARSAdamW-approx"](params)
            for param, grad in zip(params, grads, strict=True):
                param.grad = grad
            optimizer.step()
        ends.append([p.detach() for p in params])
    assert same(*ends)

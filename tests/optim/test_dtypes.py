"""State in its own dtype, bfloat16 parameters, and rounding by chance."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim import MARS, MARSAdamW
from mars_optim.optim.backends.mixed_dtype import stochastic_round

BF16, F32, F64 = torch.bfloat16, torch.float32, torch.float64


def params_(dtype: torch.dtype) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((6, 4), (3, 5), (5,))
    return [nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]


def train(params: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for t in steps:
        generator = torch.Generator().manual_seed(t)
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
        optimizer.step()


@pytest.mark.parametrize("rule", ["adamw", "lion", "muon", "shampoo"])
@pytest.mark.parametrize("correction", ["approx", "folded"])
def test_bf16_parameters_with_fp32_state_are_rounded_fp32_steps(rule: str, correction: str) -> None:
    options: dict[str, Any] = dict(rule=rule, correction=correction, lr=0.01, optimize_1d=True)
    exact, rounded = params_(BF16), params_(BF16)
    wide = [nn.Parameter(p.detach().to(F32)) for p in exact]
    reference = MARS(wide, **options)
    optimizer = MARS(rounded, state_dtype=F32, **options)
    for t in range(5):
        for p, q in zip(wide, rounded, strict=True):
            p.data.copy_(q.detach())  # compare one step at a time
            p.grad = (
                torch.randn(p.shape, generator=torch.Generator().manual_seed(t)).to(BF16).to(F32)
            )
            q.grad = p.grad.to(BF16)
        reference.step()
        optimizer.step()
        for p, q in zip(wide, rounded, strict=True):
            assert torch.equal(q, p.detach().to(BF16))
            for key in ("exp_avg", "last_grad"):
                if key in optimizer.state[q]:
                    assert optimizer.state[q][key].dtype == F32
                    assert torch.equal(optimizer.state[q][key], reference.state[p][key])


def test_state_has_the_parameters_dtype_unless_asked_otherwise() -> None:
    params = params_(BF16)
    optimizer = MARSAdamW(params, last_grad_dtype=F32)
    train(params, optimizer, range(2))
    state = optimizer.state[params[0]]
    assert {k: v.dtype for k, v in state.items()} == {
        "step": F32,
        "exp_avg": BF16,
        "exp_avg_sq": BF16,
        "last_grad": F32,
    }


def test_bf16_history_of_fp32_parameters_is_near_at_half_memory() -> None:
    full, half = params_(F32), params_(F32)
    optimizers = MARSAdamW(full, gamma=0.1), MARSAdamW(half, gamma=0.1, last_grad_dtype=BF16)
    start = [p.detach().clone() for p in full]
    for params, optimizer in zip((full, half), optimizers, strict=True):
        train(params, optimizer, range(10))
    for p, q, s in zip(full, half, start, strict=True):
        assert (p - q).norm() < 0.02 * (p - s).norm()
    assert not torch.equal(full[0], half[0])
    assert optimizers[1].state[half[0]]["last_grad"].dtype == BF16


@pytest.mark.parametrize("way", ["state_dict", "file", "deepcopy"])
def test_fp32_state_of_bf16_parameters_is_resumed_bit_for_bit(way: str) -> None:
    options: dict[str, Any] = dict(state_dtype=F32, last_grad_dtype=BF16, gamma=0.1)
    params = params_(BF16)
    optimizer = MARSAdamW(params, **options)
    train(params, optimizer, range(4))
    if way == "deepcopy":
        params2, optimizer2 = copy.deepcopy((params, optimizer))
    else:
        params2 = copy.deepcopy(params)
        optimizer2 = MARSAdamW(params2)  # the checkpoint's settings win
        saved = copy.deepcopy(optimizer.state_dict())
        if way == "file":
            file = io.BytesIO()
            torch.save(saved, file)
            file.seek(0)
            saved = torch.load(file, weights_only=True)
        optimizer2.load_state_dict(saved)
    for p, q in zip(params, params2, strict=True):
        for key, value in optimizer.state[p].items():
            assert optimizer2.state[q][key].dtype == value.dtype
            assert torch.equal(optimizer2.state[q][key], value)
    for ps, o in ((params, optimizer), (params2, optimizer2)):
        train(ps, o, range(4, 8))
    for p, q in zip(params, params2, strict=True):
        assert torch.equal(p, q)


def test_stochastic_rounding_is_unbiased_and_exact_if_it_fits() -> None:
    torch.manual_seed(0)
    low, high = torch.tensor(1.0), torch.tensor(1.0 + 2**-7)  # neighbours in bfloat16
    x = torch.full((200_000,), 1.0 + 0.3 * 2**-7)
    rounded = stochastic_round(x)
    assert set(rounded.float().unique().tolist()) == {float(low), float(high)}
    share = (rounded.float() == high).float().mean()
    assert float(share) == pytest.approx(0.3, abs=0.005)
    fits = torch.randn(1000).to(BF16)
    assert torch.equal(stochastic_round(fits.float()), fits)
    special = torch.tensor([float("inf"), -float("inf"), 0.0, -0.0])
    assert torch.equal(stochastic_round(special).float(), special)
    assert stochastic_round(torch.tensor([float("nan")])).isnan().all()


def test_negative_numbers_are_rounded_by_chance_too() -> None:
    torch.manual_seed(0)
    x = torch.full((200_000,), -(1.0 + 0.3 * 2**-7))
    assert float(stochastic_round(x).double().mean()) == pytest.approx(float(x[0]), abs=1e-4)


def moved(optimizer_options: dict[str, Any]) -> tuple[float, Tensor]:
    """Share of bf16 weights near 1 that 50 small steps moved, and the mean way."""
    torch.manual_seed(0)
    param = nn.Parameter(torch.ones(2000, 2, dtype=BF16))
    optimizer = MARSAdamW([param], lr=1e-4, weight_decay=0.0, **optimizer_options)
    for _ in range(50):
        param.grad = torch.ones_like(param)
        optimizer.step()
    return float((param != 1).float().mean()), (1 - param.detach().double()).mean()


def test_stochastic_rounding_moves_weights_where_nearest_cannot() -> None:
    share, _ = moved({"state_dtype": F32})
    assert share == 0.0
    share, way = moved({"state_dtype": F32, "stochastic_rounding": True})
    assert share > 0.5
    assert float(way) == pytest.approx(50 * 1e-4, rel=0.1)  # Adam's step is lr here


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_dtype": torch.int8}, r"state_dtype=torch\.int8 must be None or a floating"),
        ({"last_grad_dtype": "bf16"}, r"last_grad_dtype='bf16' must be"),
        ({"stochastic_rounding": 1}, r"stochastic_rounding=1 must be True or False"),
    ],
)
def test_a_wrong_dtype_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MARSAdamW(params_(F32), **options)


def test_old_checkpoints_get_the_defaults_of_new_keys() -> None:
    params = params_(F64)
    optimizer = MARSAdamW(params)
    train(params, optimizer, range(2))
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        for key in ("state_dtype", "last_grad_dtype", "stochastic_rounding", "stacked"):
            del group[key]
    params2 = copy.deepcopy(params)
    optimizer2 = MARSAdamW(params2)
    optimizer2.load_state_dict(saved)
    for ps, o in ((params, optimizer), (params2, optimizer2)):
        train(ps, o, range(2, 4))
    for p, q in zip(params, params2, strict=True):
        assert torch.equal(p, q)


def test_stochastic_rounding_is_equal_in_replicas_and_on_resume() -> None:
    def make() -> tuple[nn.Parameter, MARS]:
        x = nn.Parameter(torch.ones(40, 30, dtype=torch.bfloat16))
        return x, MARS([x], lr=1e-4, state_dtype=F32, stochastic_rounding=True)

    def step(x: nn.Parameter, optimizer: MARS) -> None:
        x.grad = torch.ones_like(x)
        optimizer.step()

    (x, one), (y, other) = make(), make()
    for _ in range(3):
        torch.manual_seed(1)
        step(x, one)
        torch.manual_seed(2)
        step(y, other)
        assert torch.equal(x, y)
    (z, resumed) = make()
    z.data.copy_(x)
    resumed.load_state_dict(copy.deepcopy(one.state_dict()))
    first = x.detach().clone()
    step(x, one)
    step(z, resumed)
    assert torch.equal(x, z)
    assert not torch.equal(x, first)  # and each step draws anew

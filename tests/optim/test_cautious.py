"""Cautious steps: only where the direction agrees with the gradient, and by hand-made numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mars_optim import MARS, MARSM, MARSAdamW, MARSLion
from tests.support.cases import make_grads, make_params, run


def one_step(cls: type[MARS], g: list[float], m: list[float], **options: Any) -> Tensor:
    """How far the step goes, at lr 1 and without decay, from an EMA of ``m`` with gradient g."""
    x = nn.Parameter(torch.zeros(1, len(g), dtype=torch.float64))
    optimizer = cls([x], lr=1.0, betas=(0.5, 0.0), eps=0.0, weight_decay=0.0, clip=None, **options)
    x.grad = torch.zeros_like(x)
    optimizer.step()  # makes the state
    with torch.no_grad():
        x.zero_()
        optimizer.state[x]["exp_avg"].copy_(torch.tensor([m]))
        optimizer.state[x]["step"].zero_()
    x.grad = torch.tensor([g], dtype=torch.float64)
    optimizer.step()
    return -x.detach()[0]


def test_cautious_adamw_scales_agreeing_elements_by_their_share() -> None:
    # m_t = (m + g) / 2, over 1 - beta1, over |g|
    d = one_step(MARSAdamW, [1.0, 1.0, -1.0, 2.0], [1.0, -3.0, -1.0, 2.0], gamma=0.0, cautious=True)
    torch.testing.assert_close(d, torch.tensor([2.0, 0.0, -2.0, 2.0], dtype=d.dtype) / 0.75)


def test_lion_compares_the_sign_of_its_momentum() -> None:
    d = one_step(MARSLion, [1.0, 1.0, -1.0, 0.0], [1.0, -3.0, -1.0, 2.0], gamma=0.0, cautious=True)
    torch.testing.assert_close(d, torch.tensor([1.0, 0.0, -1.0, 0.0], dtype=d.dtype) / 0.5)


def test_muon_compares_the_orthogonal_direction_not_the_momentum() -> None:
    plain = one_step(MARSM, [1.0, 1e-3, -1.0], [1.0, -2e-3, -2.0], gamma=0.0)
    d = one_step(MARSM, [1.0, 1e-3, -1.0], [1.0, -2e-3, -2.0], gamma=0.0, cautious=True)
    kept = torch.tensor([1.0, 0.0, 1.0], dtype=d.dtype)
    torch.testing.assert_close(d, plain * kept / (2 / 3))


@pytest.mark.parametrize("correction", ["approx", "folded"])
def test_cautious_compares_the_raw_not_the_corrected_gradient(correction: str) -> None:
    """c_2 = 1 + 10 (1 - 2) = -9: the momentum follows it, against g_2 = 1."""
    x = nn.Parameter(torch.zeros(1, 1, dtype=torch.float64))
    options = dict(gamma=10.0, clip=None, weight_decay=0.0, betas=(0.5, 0.9))
    optimizer = MARSAdamW([x], lr=1.0, correction=correction, cautious=True, **options)
    x.grad = torch.full_like(x, 2.0)
    optimizer.step()
    before = x.item()
    x.grad = torch.full_like(x, 1.0)
    optimizer.step()
    momentum = optimizer.state[x]["exp_avg"].item()
    m = momentum if correction == "approx" else (1 - 10) * momentum + 10 * 1.0
    assert (x.item() == before) == (m < 0)


def test_cautious_step_without_agreement_is_0_and_scale_capped() -> None:
    none = one_step(MARSAdamW, [1.0] * 4, [-3.0] * 4, gamma=0.0, cautious=True)
    assert none.tolist() == [0.0] * 4
    n = 4000
    one = one_step(MARSAdamW, [1.0] * n, [1.0] + [-3.0] * (n - 1), gamma=0.0, cautious=True)
    assert one[0].item() == pytest.approx(2.0 / 1e-3)
    assert one[1:].count_nonzero() == 0


def test_gradients_whose_products_underflow_still_agree() -> None:
    x = nn.Parameter(torch.zeros(1, 2))
    optimizer = MARSLion([x], lr=1.0, clip=None, weight_decay=0.0, cautious=True)
    x.grad = torch.tensor([[1e-30, -1e-30]])
    optimizer.step()
    assert x.tolist() == [[-1.0, 1.0]]


def test_moments_and_decay_are_those_of_the_step_without_caution() -> None:
    params, others = make_params(), make_params()
    one, other = MARSAdamW(params, cautious=True), MARSAdamW(others, foreach=True)
    run(one, params)
    run(other, others)
    for p, q in zip(params, others, strict=True):
        for key in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(one.state[p][key], other.state[q][key])
        assert not torch.equal(p, q)


def test_vectors_under_plain_adamw_are_masked_too() -> None:
    params = make_params([(3,)])
    optimizer = MARSAdamW(params, cautious=True, weight_decay=0.0)
    for param, grad in zip(params, make_grads(params, 0), strict=True):
        param.grad = grad
    optimizer.step()
    before = params[0].detach().clone()
    params[0].grad = -0.01 * params[0].grad  # against the momentum
    optimizer.step()
    assert torch.equal(params[0], before)


def test_describe_tells_cautious_rule_and_why_no_faster_path() -> None:
    told = MARSAdamW(make_params(dtype=torch.float32), cautious=True).describe()
    assert "cautious adamw" in told
    assert "- path foreach: " in told
    assert "cautious=True has no CPU kernel" in told


@pytest.mark.parametrize("cautious", [False, True])
@pytest.mark.parametrize("path", [{}, {"foreach": True}, {"foreach": False}])
def test_a_float16_parameter_without_gradient_stays_where_it_is(path: Any, cautious: bool) -> None:
    """eps=1e-8 is 0 in float16."""
    x = nn.Parameter(torch.ones(3, 3, dtype=torch.float16))
    optimizer = MARSAdamW([x], cautious=cautious, weight_decay=0.0, **path)
    for _ in range(3):
        x.grad = torch.zeros_like(x)
        optimizer.step()
    assert torch.equal(x, torch.ones_like(x))

"""Settings at which MARS is, to the bit or to round-off, an optimizer that has another name."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mars_optim import MARSM, MARSAdamW, MARSLion
from tests.support.cases import copies, make_grads, make_params, run, same

MATRICES = [(5, 3), (3, 8), (6, 6)]
EXACT = dict(rtol=1e-12, atol=1e-14)


def assert_close(some: list[Tensor], others: list[Tensor], **tolerance: float) -> None:
    torch.testing.assert_close(some, others, **(tolerance or EXACT))


# --- AdamW ----------------------------------------------------------------------------------------

ADAMW = dict(lr=0.01, betas=(0.9, 0.98), eps=1e-7, weight_decay=0.1)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("correction", ["approx", "folded"])
def test_no_gamma_and_no_clip_is_torch_fused_adamw_bit_for_bit(
    correction: str, amsgrad: bool
) -> None:
    ours, theirs = make_params(dtype=torch.float32), make_params(dtype=torch.float32)
    mars = MARSAdamW(
        ours,
        **ADAMW,
        amsgrad=amsgrad,
        gamma=0.0,
        clip=None,
        correction=correction,
        optimize_1d=True,
    )
    adamw = torch.optim.AdamW(theirs, **ADAMW, amsgrad=amsgrad, fused=True)
    for step in range(12):
        assert same(run(mars, ours, [step]), run(adamw, theirs, [step]))


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("backend", [{}, {"foreach": True}, {"foreach": False}], ids=str)
def test_no_gamma_and_no_clip_is_torch_foreach_adamw_in_float64(
    backend: dict[str, Any], amsgrad: bool, maximize: bool
) -> None:
    ours, theirs = make_params(), make_params()
    options = dict(**ADAMW, amsgrad=amsgrad, maximize=maximize)
    mars = MARSAdamW(ours, **options, gamma=0.0, clip=None, optimize_1d=True, **backend)
    adamw = torch.optim.AdamW(theirs, **options, foreach=True)
    for step in range(12):
        assert_close(run(mars, ours, [step]), run(adamw, theirs, [step]))


def test_vectors_are_torch_adamw_with_their_own_betas() -> None:
    ours, theirs = make_params([(7,), ()]), make_params([(7,), ()])
    mars = MARSLion(ours, lr=0.01, weight_decay=0.1, gamma=0.3, clip=0.1)
    adamw = torch.optim.AdamW(theirs, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1, foreach=True)
    assert_close(run(mars, ours, range(6)), run(adamw, theirs, range(6)))


# --- Muon -----------------------------------------------------------------------------------------


def muon_pair(correction: str, momentum: float) -> tuple[Any, Any]:
    ours = make_params(MATRICES, dtype=torch.float32)
    theirs = make_params(MATRICES, dtype=torch.float32)
    mars = MARSM(
        ours,
        lr=0.02,
        betas=(momentum, 0.99),
        weight_decay=0.1,
        gamma=1 - momentum,
        clip=None,
        correction=correction,
    )
    muon = torch.optim.Muon(
        theirs,
        lr=0.02,
        momentum=momentum,
        weight_decay=0.1,
        nesterov=True,
        adjust_lr_fn="match_rms_adamw",
    )
    return (mars, ours), (muon, theirs)


@pytest.mark.parametrize("momentum", [0.95, 0.8])
@pytest.mark.parametrize("correction", ["approx", "folded"])
def test_mars_m_with_gamma_1_minus_beta1_is_torch_nesterov_muon(
    correction: str, momentum: float
) -> None:
    sides = muon_pair(correction, momentum)
    trails = []
    for optimizer, params in sides:
        trails.append([copies(params), *(run(optimizer, params, [step]) for step in range(8))])
    for (before, after), (their_before, their_after) in zip(*map(pairwise, trails), strict=True):
        for x, x_next, y, y_next in zip(before, after, their_before, their_after, strict=True):
            assert (x_next - x - (y_next - y)).norm() < 0.1 * (y_next - y).norm()  # bfloat16
    start = trails[0][0]
    for x0, x, y in zip(start, trails[0][-1], trails[1][-1], strict=True):
        assert (x - y).norm() < 0.03 * (y - x0).norm()


# --- folded ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.025, 0.3, 1.0])
@pytest.mark.parametrize("cls", [MARSLion, MARSM])
def test_folded_equals_approx_without_clip_for_lion_and_muon(cls: type, gamma: float) -> None:
    ends = []
    for correction in ("approx", "folded"):
        params = make_params(MATRICES)
        optimizer = cls(params, lr=0.01, gamma=gamma, clip=None, correction=correction)
        ends.append(run(optimizer, params, range(10)))
    assert_close(*ends, rtol=1e-10, atol=1e-12)  # Newton-Schulz enlarges round-off


@given(beta1=st.floats(0.0, 0.99), gamma=st.floats(0.0, 1.5), steps=st.integers(1, 30))
def test_folded_first_moment_is_approx_first_moment(beta1: float, gamma: float, steps: int) -> None:
    options = dict(betas=(beta1, 0.99), gamma=gamma, clip=None)
    approx_params, folded_params = make_params(MATRICES), make_params(MATRICES)
    approx = MARSAdamW(approx_params, **options)
    folded = MARSAdamW(folded_params, **options, correction="folded")
    run(approx, approx_params, range(steps))
    run(folded, folded_params, range(steps))
    for p, q in zip(approx_params, folded_params, strict=True):
        m = (1 - gamma) * folded.state[q]["exp_avg"] + gamma * q.grad
        torch.testing.assert_close(m, approx.state[p]["exp_avg"], rtol=1e-9, atol=1e-11)


@given(
    beta1=st.floats(0.0, 0.99),
    gamma=st.floats(0.0, 1.5),
    grads=st.lists(st.floats(-100.0, 100.0), min_size=1, max_size=40),
)
def test_unclipped_momentum_is_an_average_of_ema_and_gradient(
    beta1: float, gamma: float, grads: list[float]
) -> None:
    x = torch.nn.Parameter(torch.zeros(1, 1, dtype=torch.float64))
    optimizer = MARSAdamW([x], betas=(beta1, 0.99), gamma=gamma, clip=None)
    ema = 0.0
    for g in grads:
        x.grad = torch.full_like(x, g)
        optimizer.step()
        ema = beta1 * ema + (1 - beta1) * g
        m = (1 - gamma) * ema + gamma * g
        assert optimizer.state[x]["exp_avg"].item() == pytest.approx(m, rel=1e-9, abs=1e-9)


def test_folded_with_gamma_1_minus_beta1_is_nesterov_adamw() -> None:
    beta1, beta2, lr, decay, eps = 0.9, 0.97, 0.01, 0.1, 1e-8
    params = make_params(MATRICES)
    x = copies(params)
    optimizer = MARSAdamW(
        params,
        lr=lr,
        betas=(beta1, beta2),
        eps=eps,
        weight_decay=decay,
        gamma=1 - beta1,
        correction="folded",
    )
    ema = [torch.zeros_like(p) for p in x]
    v = [torch.zeros_like(p) for p in x]
    for t in range(1, 9):
        for i, g in enumerate(make_grads(params, t)):
            ema[i] = beta1 * ema[i] + (1 - beta1) * g
            v[i] = beta2 * v[i] + (1 - beta2) * g**2
            m = beta1 * ema[i] + (1 - beta1) * g  # Nesterov: one more step of the average
            m_hat, v_hat = m / (1 - beta1**t), v[i] / (1 - beta2**t)
            x[i] = x[i] - lr * (m_hat / (v_hat.sqrt() + eps) + decay * x[i])
        assert_close(run(optimizer, params, [t]), x)


# --- Lion -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("correction", ["approx", "folded"])
@pytest.mark.parametrize(("beta1", "beta2"), [(0.9, 0.99), (0.95, 0.98), (0.5, 0.9)])
def test_mars_lion_at_the_gamma_of_its_docstring_is_lion(
    beta1: float, beta2: float, correction: str
) -> None:
    lr, decay = 0.01, 0.1
    params = make_params(MATRICES)
    x = copies(params)
    optimizer = MARSLion(
        params,
        lr=lr,
        betas=(beta2, 0.0),
        weight_decay=decay,
        gamma=(beta2 - beta1) / beta2,
        clip=None,
        correction=correction,
    )
    m = [torch.zeros_like(p) for p in x]
    for step in range(20):
        for i, g in enumerate(make_grads(params, step)):
            update = (beta1 * m[i] + (1 - beta1) * g).sign()
            m[i] = beta2 * m[i] + (1 - beta2) * g
            x[i] = x[i] - lr * (update + decay * x[i])
        assert_close(run(optimizer, params, [step]), x)

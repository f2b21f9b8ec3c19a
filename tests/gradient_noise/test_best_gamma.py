"""The gamma of least estimated error, against a numerical optimum."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import minimize_scalar

from docs.figures.noise_formulas import (
    average_variance,
    lag_from_drift,
    least_error,
    momentum_error,
)
from mars_optim.gradient_noise import best_gamma
from mars_optim.optim.gamma.criteria import LeastError

CURVATURE = torch.tensor([0.02, 0.1, 0.5, 1.0, 1.5], dtype=torch.float64)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("lag", [0.0, 0.01, 0.3, 20.0])
def test_the_closed_form_is_where_the_error_is_least(beta: float, lag: float):
    found = least_error(lag_squared=lag, noise=2.0, beta=beta)
    best = minimize_scalar(
        lambda gamma: momentum_error(gamma, lag_squared=lag, noise=2.0, beta=beta),
        bounds=(0.0, 1.0),
        method="bounded",
        options={"xatol": 1e-9},
    )
    errors = [momentum_error(g, lag_squared=lag, noise=2.0, beta=beta) for g in (found, best.x)]
    assert errors[0] <= errors[1] + 1e-12
    assert found == pytest.approx(best.x, abs=1e-5) or beta == 0.0


def test_correction_pays_once_lag_exceeds_beta_times_variance():
    beta, noise = 0.95, 3.0
    edge = beta * noise * average_variance(beta)
    assert least_error(lag_squared=0.999 * edge, noise=noise, beta=beta) == 0.0
    assert least_error(lag_squared=1.001 * edge, noise=noise, beta=beta) > 0.0


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("lag", [0.0, 0.01, 0.3, 20.0])
def test_best_gamma_on_a_fixed_path_equals_the_closed_form(beta: float, lag: float):
    noise, signal = 2.0, 5.0
    # lag is the average's after the step: before it, 1 / beta of it, in |.| not |.|^2
    error = lag / beta**2 + noise * average_variance(beta)
    gm = 1.0
    mm = error + 2 * gm - signal
    found = best_gamma(signal + noise, signal + noise, signal, gm, mm, beta=beta)
    assert found == pytest.approx(least_error(lag_squared=lag, noise=noise, beta=beta), abs=1e-12)


def run(
    lr: float, noise: float, beta: float, gamma: float, steps: int = 4000
) -> tuple[list[float], list[list[float]]]:
    """The five dot products of a noisy run on a quadratic, means; and what m_t's error is made of.

    The path moves with the noise, as a real one: nothing is held fixed.
    """
    generator = torch.Generator().manual_seed(3)
    x = torch.full((5,), 3.0, dtype=torch.float64)
    average, last, dots, parts = torch.zeros_like(x), torch.zeros_like(x), [], []
    for t in range(steps):
        full = CURVATURE * x
        g = full + noise * torch.randn(5, dtype=torch.float64, generator=generator)
        before, average = average, beta * average + (1 - beta) * g
        if t >= steps // 4:
            pairs = ((g, g), (last, last), (g, last), (g, before), (before, before))
            dots.append([float(a @ b) for a, b in pairs])
            a, b = average - full, g - full
            parts.append([float(a @ a), float(a @ b), float(b @ b)])
        last = g
        x = x - lr * ((1 - gamma) * average + gamma * g)
    return torch.tensor(dots).mean(0).tolist(), torch.tensor(parts).mean(0).tolist()


@pytest.mark.parametrize("gamma", [0.0, 0.05])
@pytest.mark.parametrize(("lr", "beta"), [(0.02, 0.9), (0.1, 0.9), (0.3, 0.9), (0.3, 0.95)])
def test_best_gamma_from_dot_products_has_the_least_true_error(
    lr: float, beta: float, gamma: float
):
    statistics, (aa, ab, bb) = run(lr, 0.3, beta, gamma)

    def true_error(at: float) -> float:
        return (1 - at) ** 2 * aa + 2 * at * (1 - at) * ab + at**2 * bb

    best = minimize_scalar(true_error, bounds=(0.0, 1.0), method="bounded")
    found = best_gamma(*statistics, beta=beta)
    assert true_error(found) <= 1.02 * best.fun
    assert found == pytest.approx(best.x, abs=0.04)


def test_best_gamma_is_larger_if_the_path_follows_its_noise():
    statistics, _ = run(1.0, 0.3, 0.9, 0.0)
    assert best_gamma(*statistics, beta=0.9) > 0.1
    statistics, _ = run(1e-4, 0.3, 0.9, 0.0)
    assert best_gamma(*statistics, beta=0.9) < 0.03


def test_error_of_average_without_noise_is_the_straight_line_lag():
    beta, drift = 0.9, torch.tensor([0.1, -0.2], dtype=torch.float64)
    at = [t * drift for t in range(300)]
    average = torch.zeros(2, dtype=torch.float64)
    for full in at[:-1]:
        average = beta * average + (1 - beta) * full
    g, last = at[-1], at[-2]
    pairs = ((g, g), (last, last), (g, last), (g, average), (average, average))
    _, error = LeastError().errors(torch.stack([a @ b for a, b in pairs]))
    found = beta**2 * float(error)
    straight = lag_from_drift(float(drift @ drift), beta=beta)
    assert straight == pytest.approx(float(((beta / (1 - beta)) * drift).square().sum()))
    assert found == pytest.approx(straight, rel=0.01)  # half a step's move of ten steps' lag


@pytest.mark.parametrize(
    ("options", "message"),
    [({"beta": 1.0}, "beta=1.0"), ({"beta": 0.0}, "beta=0.0")],
)
def test_a_beta_or_gamma_out_of_range_is_refused(options: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        best_gamma(1.0, 1.0, 0.5, 0.5, 0.5, **options)


def test_a_step_that_overflowed_asks_for_no_correction():
    assert best_gamma(math.inf, 1.0, 0.5, 0.5, 0.5, beta=0.9) == 0.0
    assert best_gamma(0.0, 0.0, 0.0, 0.0, 0.0, beta=0.9) == 0.0

"""The gamma of least estimated error, against a numerical optimum."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import minimize_scalar

from mars_optim.noise import best_gamma
from mars_optim.noise.gamma import (
    average_variance,
    lag_from_drift,
    lag_from_momentum,
    least_error,
    momentum_error,
)

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


def test_a_correction_pays_just_from_where_the_lag_is_beta_times_the_average_s_variance():
    beta, noise = 0.95, 3.0
    edge = beta * noise * average_variance(beta)
    assert least_error(lag_squared=0.999 * edge, noise=noise, beta=beta) == 0.0
    assert least_error(lag_squared=1.001 * edge, noise=noise, beta=beta) > 0.0


def run(lr: float, noise: float, beta: float, gamma: float, steps: int = 400) -> list[torch.Tensor]:
    """grad F along a noisy run of MARS-approx (folded) on a quadratic."""
    generator = torch.Generator().manual_seed(3)
    x = torch.full((5,), 3.0, dtype=torch.float64)
    average, gradients = torch.zeros(5, dtype=torch.float64), []
    for _ in range(steps):
        gradients.append(CURVATURE * x)
        g = CURVATURE * x + noise * torch.randn(5, dtype=torch.float64, generator=generator)
        average = beta * average + (1 - beta) * g
        x = x - lr * ((1 - gamma) * average + gamma * g)
    return gradients


def expectations(
    gradients: list[torch.Tensor], noise: float, beta: float, gamma: float, tail: int
) -> tuple[list[float], float]:
    """The five dot products and the true |L|^2, means over the last steps of a fixed path."""
    variance = 5 * noise**2
    average = torch.zeros(5, dtype=torch.float64)
    momentum, rows = average, []
    for t, full in enumerate(gradients):
        if t >= len(gradients) - tail:
            last = gradients[t - 1]
            mm = momentum.square().sum() + average_variance(beta, gamma) * variance
            gg, ll = full.square().sum() + variance, last.square().sum() + variance
            lag = (beta * average + (1 - beta) * full - full).square().sum()
            rows.append([gg, ll, full @ last, full @ momentum, mm, lag])
        average = beta * average + (1 - beta) * full
        momentum = (1 - gamma) * average + gamma * full
    *statistics, lag = torch.tensor(rows).mean(0).tolist()
    return statistics, lag


@pytest.mark.parametrize("beta", [0.9, 0.95])
@pytest.mark.parametrize("gamma", [0.0, 0.05])
@pytest.mark.parametrize(("lr", "noise"), [(0.05, 0.01), (0.05, 0.1), (0.02, 0.3), (0.3, 0.3)])
def test_dot_products_of_a_run_on_a_quadratic_give_the_gamma_of_least_true_error(
    lr: float, noise: float, beta: float, gamma: float
):
    gradients = run(lr, noise, beta, gamma)
    statistics, lag = expectations(gradients, noise, beta, gamma, tail=100)
    true = dict(lag_squared=lag, noise=5 * noise**2, beta=beta)
    best = minimize_scalar(
        lambda g: momentum_error(g, **true), bounds=(0.0, 1.0), method="bounded"
    ).fun
    found = best_gamma(*statistics, beta=beta, gamma=gamma)
    assert momentum_error(found, **true) <= 1.02 * best


def test_sampled_dot_products_give_it_too():
    beta, noise, lr = 0.9, 0.3, 1.0
    generator = torch.Generator().manual_seed(5)
    gradients = run(lr, noise, beta, 0.0, steps=3000)
    average, last, sums = torch.zeros(5, dtype=torch.float64), None, []
    for full in gradients:
        g = full + noise * torch.randn(5, dtype=torch.float64, generator=generator)
        if last is not None:
            sums.append(torch.stack([g @ g, last @ last, g @ last, g @ average, average @ average]))
        average = beta * average + (1 - beta) * g
        last = g
    found = best_gamma(*torch.stack(sums[500:]).mean(0).tolist(), beta=beta)
    statistics, _ = expectations(gradients, noise, beta, 0.0, tail=2500)
    assert found == pytest.approx(best_gamma(*statistics, beta=beta), abs=0.03)
    assert found > 0.02


def test_lag_from_the_momentum_is_that_of_a_straight_line_when_the_gradient_moves_on_one():
    beta, drift = 0.9, torch.tensor([0.1, -0.2], dtype=torch.float64)
    at = [t * drift for t in range(300)]
    average = torch.zeros(2, dtype=torch.float64)
    for full in at[:-1]:
        average = beta * average + (1 - beta) * full
    g, last = at[-1], at[-2]
    dots = [float(a @ b) for a, b in ((g, g), (last, last), (g, last), (g, average))]
    mm = float(average @ average)
    found = lag_from_momentum(*dots, mm, beta=beta)
    straight = lag_from_drift(float(drift @ drift), beta=beta)
    assert straight == pytest.approx(float(((beta / (1 - beta)) * drift).square().sum()))
    assert found == pytest.approx(straight, rel=0.01)  # half a step's move of ten steps' lag


@pytest.mark.parametrize(
    ("options", "message"),
    [({"beta": 1.0}, "beta=1.0"), ({"beta": 0.9, "gamma": 1.0}, "gamma=1.0")],
)
def test_a_beta_or_gamma_out_of_range_is_refused(options: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        best_gamma(1.0, 1.0, 0.5, 0.5, 0.5, **options)


def test_a_step_that_overflowed_asks_for_no_correction():
    assert best_gamma(math.inf, 1.0, 0.5, 0.5, 0.5, beta=0.9) == 0.0
    assert best_gamma(0.0, 0.0, 0.0, 0.0, 0.0, beta=0.9) == 0.0

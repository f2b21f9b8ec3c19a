from __future__ import annotations

import numpy as np
import pytest

from mars_optim.experiment.scaling.law import FORMS, LONGEST, Form, Knots, Law, Points

N, T = np.meshgrid(np.linspace(-1, 1, 4), np.linspace(-1, 1, 3))
AT = Points(np.tile(N.ravel(), 3), np.tile((N + T).ravel(), 3), np.repeat([0, 1, 2], 12))


def law(form: Form) -> Law:
    return Law(form, 3, Knots.of(AT))


def some_theta(form: Form, draw: int = 0) -> np.ndarray:
    mean, sd = law(form).prior(0.1, 0.1, 10.0)
    return mean + np.random.default_rng(draw).normal(0, 0.1, mean.shape) * (sd > 1e-3)


@pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])
def test_the_jacobian_is_that_of_the_losses(form: Form) -> None:
    theta, tiny = some_theta(form), 1e-6
    steps = np.eye(len(theta)) * tiny
    up, down = (law(form).losses(theta + side * steps, AT) for side in (1, -1))
    np.testing.assert_allclose(law(form).jacobian(theta, AT), (up - down).T / 2 / tiny, atol=1e-7)


@pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])
def test_baseline_has_the_arms_loss_at_ratio_times_tokens(form: Form) -> None:
    theta = some_theta(form)
    logs = law(form).log_ratios(theta, AT)
    more = Points(AT.n, AT.d + logs, 0 * AT.arm)
    np.testing.assert_allclose(law(form).losses(theta, more), law(form).losses(theta, AT))
    np.testing.assert_array_equal(logs[AT.arm == 0], 0)


def test_a_loss_below_the_baselines_floor_has_the_longest_ratio() -> None:
    form = FORMS[1]
    theta = some_theta(form)
    theta[8] = 50.0  # kappa of the first arm
    flat = Points(AT.n, AT.d + 100, 0 * AT.arm)
    below = law(form).losses(theta, AT) <= law(form).losses(theta, flat)
    assert below.any()
    assert (law(form).log_ratios(theta, AT)[below] == LONGEST).all()


@pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])
def test_the_slope_is_the_baselines_fall_with_tokens(form: Form) -> None:
    theta, tiny = some_theta(form), 1e-6
    up, down = (
        law(form).losses(theta, Points(AT.n, AT.d + side * tiny, 0 * AT.arm)) for side in (1, -1)
    )
    np.testing.assert_allclose(law(form).slopes(theta, AT), (down - up) / 2 / tiny, rtol=1e-6)


def test_knots_hold_the_largest_and_not_the_smallest() -> None:
    at = Points(np.arange(9.0), np.arange(9.0), np.zeros(9, np.intp))
    knots = Knots.of(at)
    assert knots.sizes.tolist() == [1.0, 5.0, 8.0]
    assert knots.lengths.tolist() == []

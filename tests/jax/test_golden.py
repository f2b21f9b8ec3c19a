"""The published implementations' trajectories are those of the JAX twin too."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.jax.twins import by_jax, of_torch
from tests.optim.test_golden import CASES, inputs


def transform_of(case: dict[str, Any]) -> Any:
    hyper = dict(case["hyper"])
    if "mars_type" in hyper:
        return of_torch({"rule": hyper.pop("mars_type").removeprefix("mars-"), **hyper})
    return of_torch(
        dict(
            rule="muon",
            lr=hyper["lr"],
            betas=(hyper["momentum"], 0.99),
            weight_decay=hyper["wd"],
            gamma=hyper["gamma"],
            ns_steps=hyper["ns_steps"],
            betas_1d=hyper["adamw_betas"],
            correction="folded" if "no-stored-gradient" in case["name"] else "approx",
        )
    )


def trajectory(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Parameters after each recorded step: ours, and the published ones."""
    case = CASES[name]
    init, grads = inputs(case)
    start = {key: value.numpy() for key, value in init.items()}
    given = [{key: value.numpy() for key, value in g.items()} for g in grads]
    found = [(start, start)]
    for t, (params, _) in enumerate(by_jax(start, given, transform_of(case)), 1):
        if (published := case["params"].get(str(t))) is not None:
            found.append((params, {key: np.asarray(published[key]) for key in params}))
    return found


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c["dtype"] == "float64"])
def test_float64_trajectory_is_the_published_one(name: str) -> None:
    for ours, published in trajectory(name):
        for key, value in published.items():
            np.testing.assert_allclose(ours[key], value, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c["dtype"] == "float32"])
def test_newton_schulz_is_the_published_one_within_bf16_noise(name: str) -> None:
    points = trajectory(name)
    assert {value.dtype for value in points[-1][0].values()} == {np.dtype(np.float32)}
    for key, value in points[0][0].items():
        if value.ndim < 2:  # AdamW: no Newton-Schulz
            for ours, published in points:
                np.testing.assert_allclose(ours[key], published[key], rtol=1e-6, atol=1e-6)
            continue
        path = 0.0
        for (x, y), (x_next, y_next) in pairwise(points):
            step = np.linalg.norm(y_next[key] - y[key])
            path += step
            apart = (x_next[key] - x[key]) - (y_next[key] - y[key])
            assert np.linalg.norm(apart) < 0.1 * step, key
        ours, published = points[-1]
        assert np.linalg.norm(ours[key] - published[key]) < 0.03 * path, key


def test_oracle_runs_in_float64() -> None:
    assert jnp.zeros(()).dtype == jnp.float64
    assert jax.config.jax_enable_x64

"""Every rule, correction and clip in JAX is PyTorch's reference loop, to 1e-12 in float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mars_optim import MARS
from mars_optim.gamma_numbers import EVERY, FIRST
from mars_optim.jax import GammaState, mars, scale_by_mars
from tests.jax.twins import (
    Arrays,
    assert_twins,
    by_jax,
    by_torch,
    drawn,
    gradients,
    of_torch,
)

BASE: dict[str, Any] = dict(lr=0.01, weight_decay=0.1, gamma=0.05, betas=(0.9, 0.97))
RULES = ("adamw", "lion", "muon", "shampoo")

CASES: dict[str, dict[str, Any]] = {
    **{
        f"{rule}-{form}": dict(rule=rule, correction=form)
        for rule in RULES
        for form in ("approx", "folded")
    },
    **{
        f"{rule}-{form}-cautious": dict(rule=rule, correction=form, cautious=True)
        for rule in RULES
        for form in ("approx", "folded")
    },
    "muon-cautious-1d": dict(rule="muon", cautious=True, optimize_1d=True),
    "adamw-cautious-amsgrad": dict(cautious=True, amsgrad=True),
    "adamw-global": dict(clip_over="global", clip=0.3),
    "muon-global": dict(rule="muon", clip_over="global", clip=0.3),
    "lion-1d": dict(rule="lion", optimize_1d=True),
    "muon-1d": dict(rule="muon", optimize_1d=True),
    "adamw-1d-global": dict(optimize_1d=True, clip_over="global", clip=0.3),
    "adamw-no-clip": dict(clip=None),
    "adamw-gamma-0": dict(gamma=0.0, clip=None),
    "adamw-beta-0": dict(betas=(0.0, 0.0)),
    "adamw-vectors": dict(lr_1d=0.002, weight_decay_1d=0.0, betas_1d=(0.8, 0.9), eps=1e-3),
    "muon-polar": dict(rule="muon", ns_coefficients="polar_express", ns_steps=7),
}


@pytest.mark.slow_but_one(among=8)
@pytest.mark.parametrize("name", CASES)
def test_trajectory_is_that_of_the_reference(name: str) -> None:
    options = {**BASE, **CASES[name]}
    start, grads = drawn(0), gradients(9)
    theirs = by_torch(start, grads, **options)
    for (ours, _), expected in zip(by_jax(start, grads, of_torch(options)), theirs, strict=True):
        assert_twins(ours, expected)


@pytest.mark.slow_but_one
@pytest.mark.parametrize("rule", RULES)
def test_exact_form_takes_the_gradients_at_the_previous_point(rule: str) -> None:
    options = {**BASE, "rule": rule, "correction": "exact"}
    start, grads = drawn(0), gradients(7)
    before = [drawn(500 + t) for t in range(7)]
    theirs = by_torch(start, grads, before=before, **options)
    for (ours, _), expected in zip(
        by_jax(start, grads, of_torch(options), before), theirs, strict=True
    ):
        assert_twins(ours, expected)


def test_scheduled_gamma_is_taken_at_each_step() -> None:
    start, grads = drawn(0), gradients(7)

    def edit(optimizer: MARS, t: int) -> None:
        optimizer.param_groups[0]["gamma"] = 0.1 / (1 + t)

    options = {**BASE, "gamma": 0.1}
    theirs = by_torch(start, grads, edit, **options)
    transform = of_torch({**options, "gamma": lambda count: 0.1 / (1 + count)})
    for (ours, _), expected in zip(by_jax(start, grads, transform), theirs, strict=True):
        assert_twins(ours, expected)


LARGE = {"matrix": (70, 41), "wide": (3, 7), "vector": (5,), "empty": (0, 3)}  # 70 x 41 is sampled


def correlated(steps: int) -> list[Arrays]:
    """Gradients with a memory, of which gamma should become something."""
    kept, found = drawn(1, 0.0, LARGE), []
    for t in range(steps):
        fresh = drawn(1000 + t, 1.0, LARGE)
        kept = {name: 0.9 * kept[name] + 0.3 * fresh[name] for name in kept}
        found.append(kept)
    return found


@pytest.mark.slow_but_one
@pytest.mark.parametrize("rule", ["adamw", "muon"])
def test_gamma_auto_chooses_what_torch_chooses(rule: str) -> None:
    steps = 60
    options = {**BASE, "rule": rule, "gamma": "auto"}
    start, grads = drawn(0, shapes=LARGE), correlated(steps)
    grads[25]["matrix"][0, 0] = np.nan if rule == "adamw" else grads[25]["matrix"][0, 0]
    chosen: list[float] = []

    def note(optimizer: MARS, t: int) -> None:
        chosen.append(float(optimizer.param_groups[0]["gamma_now"]))

    theirs = by_torch(start, grads, note, **options)
    ours = list(by_jax(start, grads, of_torch(options)))
    now = [float(gamma_of(state).now) for _, state in ours]
    np.testing.assert_allclose(now[:-1], chosen[1:], rtol=1e-11)
    assert now[FIRST - 2] == chosen[0]
    assert len(set(now)) == 1 + (steps - FIRST) // EVERY + 1
    for (params, _), expected in zip(ours[:25], theirs[:25], strict=True):
        assert_twins(params, expected, rtol=1e-10)


def gamma_of(state: Any) -> GammaState:
    (found,) = (x for x in jax.tree.leaves(state, is_leaf=is_gamma) if is_gamma(x))
    return found


def is_gamma(x: Any) -> bool:
    return isinstance(x, GammaState)


def test_amsgrad_divides_by_the_running_maximum() -> None:
    options = {**BASE, "amsgrad": True}
    start, grads = drawn(0), gradients(6)
    theirs = by_torch(start, grads, **options)
    *_, (ours, _) = by_jax(start, grads, of_torch(options))
    assert_twins(ours, theirs[-1])


def test_gamma_0_without_clip_is_optax_adamw() -> None:
    start, grads = drawn(0), gradients(6)
    ours = by_jax(start, grads, mars(0.01, 0.9, 0.97, gamma=0.0, clip=None, optimize_1d=True))
    theirs = by_jax(start, grads, optax.adamw(0.01, 0.9, 0.97, weight_decay=0.01))
    for (a, _), (b, _) in zip(ours, theirs, strict=True):
        assert_twins(a, b)


def test_unclipped_approximation_is_the_folded_form() -> None:
    start, grads = drawn(0), gradients(8)
    lion = dict(rule="lion", b1=0.9, gamma=0.05, clip=None)
    (*_, approx), (*_, folded) = (
        by_jax(start, grads, mars(0.01, correction=form, **lion)) for form in ("approx", "folded")
    )
    assert_twins(approx[0], folded[0])


def directions(transform: Any, grads: Any) -> Any:
    return jax.jit(lambda g: transform.update(g, transform.init(g)))(grads)[0]


def test_output_axis_says_which_side_shampoo_scales_by() -> None:
    grads = {"w": jnp.asarray(drawn(3)["matrix"])}  # (6, 4)
    found = {}
    for axis in ("first", "last"):
        transform = scale_by_mars(rule="shampoo", output_axis=axis)
        found[axis] = directions(transform, grads)["w"]
    np.testing.assert_allclose(found["first"], np.sqrt(6 / 4) * found["last"], rtol=1e-12)


def test_kernel_of_flax_is_the_kernel_of_torch_transposed() -> None:
    torchs = {"w": jnp.asarray(drawn(3)["kernel"])}  # (out, in, height, width)
    flaxs = {"w": torchs["w"].transpose(2, 3, 1, 0)}
    of = {axis: scale_by_mars(rule="muon", output_axis=axis) for axis in ("first", "last")}
    first = directions(of["first"], torchs)["w"]
    last = directions(of["last"], flaxs)["w"]
    np.testing.assert_allclose(first, last.transpose(3, 2, 0, 1), rtol=1e-10)


def test_stack_is_its_matrices_one_by_one() -> None:
    stack = jnp.asarray(np.random.default_rng(0).standard_normal((3, 5, 4)))
    transform = scale_by_mars(rule="muon", stacked=True, clip=None)
    whole = directions(transform, {"w": stack})["w"]
    alone = directions(transform, list(stack))
    for ours, matrix in zip(whole, alone, strict=True):
        np.testing.assert_allclose(ours, matrix, rtol=1e-12)

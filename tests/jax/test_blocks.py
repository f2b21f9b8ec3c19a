"""Arrays that hold several matrices: the reference's blocks, and what is refused."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mars_optim.jax import mars, scale_by_mars
from tests.jax.twins import assert_twins, by_jax, by_torch, drawn, gradients, of_torch

SHAPES = {"qkv": (12, 5), "fused": (10, 4), "kernel": (6, 2, 2, 2), "other": (5, 4), "bias": (12,)}
BASE: dict[str, Any] = dict(lr=0.01, weight_decay=0.1, gamma=0.05, betas=(0.9, 0.97))
SPLITS: dict[str, Any] = {"qkv": 3, "fused": (5, 3, 2), "kernel": 2}
ROUNDS: dict[str, Any] = {"qkv": ((2, 1, 1), 0, 3), "fused": ((1, 3), 1), "kernel": (4, 2)}
CASES: dict[str, dict[str, Any]] = {
    **{
        f"{rule}-{form}": dict(rule=rule, correction=form)
        for rule in ("muon", "shampoo")
        for form in ("approx", "folded")
    },
    "muon-cautious": dict(rule="muon", cautious=True),
    "shampoo-cautious": dict(rule="shampoo", cautious=True),
    "muon-global": dict(rule="muon", clip_over="global", clip=0.3),
    "muon-1d": dict(rule="muon", optimize_1d=True),
}


@pytest.mark.slow_but_one(among=10)
@pytest.mark.parametrize("splits", [SPLITS, ROUNDS], ids=["sizes", "rounds"])
@pytest.mark.parametrize("case", CASES)
def test_blocks_are_those_of_the_reference(case: str, splits: dict[str, Any]) -> None:
    options = {**BASE, **CASES[case]}
    start, grads = drawn(0, shapes=SHAPES), gradients(7, SHAPES)
    theirs = by_torch(start, grads, splits=splits, **options)
    twin = by_jax(start, grads, of_torch({**options, "split": splits}))
    for (ours, _), expected in zip(twin, theirs, strict=True):
        assert_twins(ours, expected)


def directions(grads: Any, **options: Any) -> Any:
    transform = scale_by_mars(**{"rule": "muon", **options})
    return jax.jit(lambda g: transform.update(g, transform.init(g)))(grads)[0]


def test_blocks_of_outputs_are_last_in_flax_kernels() -> None:
    fused = jnp.asarray(drawn(3, shapes={"w": (5, 12)})["w"])
    whole = directions({"qkv": fused}, split={"qkv": 3})["qkv"]
    alone = directions(jnp.split(fused, 3, axis=1))
    np.testing.assert_allclose(whole, jnp.concatenate(alone, axis=1), rtol=1e-12)


def test_blocks_of_a_stack_are_cut_in_each_matrix() -> None:
    stack = jnp.asarray(drawn(3, shapes={"w": (2, 5, 12)})["w"])
    cut = dict(stacked=True, clip=None)
    whole = directions({"w": stack}, split={"w": ((2, 3), 1)}, **cut)["w"]
    alone = [directions({"w": m}, split={"w": ((2, 3), 1)}, clip=None)["w"] for m in stack]
    np.testing.assert_allclose(whole, jnp.stack(alone), rtol=1e-12)


def test_split_may_be_a_function_of_the_path() -> None:
    params = {"layers": [{"qkv": jnp.ones((4, 6))}, {"out": jnp.ones((4, 6))}]}
    grads = jax.tree.map(
        lambda p: jnp.asarray(np.random.default_rng(0).normal(size=p.shape)), params
    )
    seen: list[str] = []

    def split(path: str) -> Any:
        seen.append(path)
        return 3 if path.endswith("qkv") else None

    found = directions(grads, split=split)
    expected = directions(grads, split={"qkv": 3})
    assert set(seen) == {"layers/0/qkv", "layers/1/out"}
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.slow
def test_split_goes_with_hyperparameters_that_change() -> None:
    params = {"qkv": jnp.asarray(drawn(3, shapes={"w": (4, 6)})["w"]), "bias": jnp.ones(6)}
    options: dict[str, Any] = dict(rule="muon", split={"qkv": 3}, cautious=True)
    of = [mars(0.1, **options), optax.inject_hyperparams(mars)(0.1, **options)]
    one, two = (jax.jit(t.update)(params, t.init(params), params)[0] for t in of)
    assert_twins(one, two)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "rule": (dict(rule="lion"), "split={'qkv': 3} is of Newton-Schulz, which rule='lion' does not"),
    "pattern": (dict(split={"kqv": 3}), r"split\['kqv'\] matches none of .* of layer/qkv"),
    "equal": (dict(split={"qkv": 4}), "layer/qkv, 4, does not fit: 6 outputs are not 4 equal bl"),
    "sizes": (dict(split={"qkv": (4, 1)}), r"6 outputs, not 4 \+ 1 = 5"),
    "inputs": (dict(split={"qkv": ((2, 1), 1, 2)}), r"4 inputs, not 2 times 2 \+ 1 = 6"),
    "kind": (dict(split={"qkv": 0}), "does not split a matrix into blocks: give a whole n"),
    "word": (dict(split={"qkv": "fused"}), "'fused', does not split a matrix"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_split_is_refused_in_a_line(case: str) -> None:
    options, message = REFUSED[case]
    options = {"rule": "muon", "split": {"qkv": 3}, **options}
    with pytest.raises(ValueError, match=message) as error:
        mars(0.1, **options).init({"layer": {"qkv": jnp.ones((4, 6))}})
    assert "\n" not in str(error.value)


def test_inputs_of_a_convolution_cannot_be_cut() -> None:
    transform = scale_by_mars(rule="muon", split={"w": ((2, 1), 1)})
    transform.init({"w": jnp.ones((3, 4))})
    with pytest.raises(ValueError, match="cuts inputs that are kernels"):
        scale_by_mars(rule="muon", split={"w": ((2, 2), 1)}).init({"w": jnp.ones((3, 3, 4, 2))})

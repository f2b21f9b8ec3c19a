"""Optax's demands on every optimizer: under jit, masked, in chains, with injected numbers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mars_optim.jax import MarsState, by_name, mars, scale_by_mars
from tests.jax.twins import drawn, gradients

FORMS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "adamw-auto": dict(gamma="auto"),
    "adamw-global": dict(clip_over="global"),
    "adamw-exact": dict(correction="exact"),
    "lion": dict(rule="lion", correction="folded"),
    "muon": dict(rule="muon"),
    "muon-cautious": dict(rule="muon", cautious=True),
    "shampoo": dict(rule="shampoo"),
}
every_form = pytest.mark.parametrize("form", FORMS)


def made(form: str, **options: Any) -> Any:
    return mars(0.02, **{**FORMS[form], **options})


def extra(form: str, grads: Any) -> dict[str, Any]:
    return {"previous_grads": grads} if "exact" in form else {}


def arrays(seed: int, dtype: Any = jnp.float32) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), drawn(seed))


def step_of(transform: Any, grads: Any, params: Any, **more: Any) -> tuple[Any, Any]:
    """Updates and state of a first step, compiled as a whole: quicker than piece by piece."""
    run = jax.jit(lambda g, p: transform.update(g, transform.init(p), p, **more))
    return run(grads, params)  # type: ignore[no-any-return]


def types(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


@every_form
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_state_and_updates_keep_structure_shapes_and_dtypes(form: str, dtype: str) -> None:
    params, grads, transform = arrays(0, dtype), arrays(1, dtype), made(form)
    state = transform.init(params)
    updates, after = jax.eval_shape(
        lambda g, s, p: transform.update(g, s, p, **extra(form, g)), grads, state, params
    )
    assert types(updates) == types(grads)
    assert types(after) == types(state)
    assert types(jax.eval_shape(transform.init, params)) == types(state)


@pytest.mark.slow_but_one
@every_form
def test_nothing_is_compiled_again_over_steps_or_donation(form: str) -> None:
    params, transform = arrays(0), made(form)

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = transform.update(grads, state, params, **extra(form, grads))
        return optax.apply_updates(params, updates), state

    kept, donated = jax.jit(step), jax.jit(step, donate_argnums=(0, 1))
    a = params, transform.init(params)
    b = jax.tree.map(jnp.copy, a)
    for t in range(4):
        grads, given = arrays(10 + t), b
        a, b = kept(*a, grads), donated(*b, grads)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given) if leaf.size)
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert (kept._cache_size(), donated._cache_size()) == (1, 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", ["adamw", "adamw-no-clip", "adamw-global", "lion-approx"])
def test_donated_step_copies_no_gradient_aside(form: str, dtype: str) -> None:
    options = {"adamw-no-clip": dict(clip=None), "lion-approx": dict(rule="lion")}
    transform = mars(0.02, **options.get(form) or FORMS[form])
    params = {f"{n}": jnp.ones((64, 128), dtype) for n in range(4)}

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = transform.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    jitted = jax.jit(step, donate_argnums=(0, 1))
    memory = jitted.lower(params, transform.init(params), params).compile().memory_analysis()
    kept = 64 * 128 * params["0"].dtype.itemsize
    assert memory.temp_size_in_bytes < kept  # of one array, and there are four


@pytest.mark.slow
def test_a_step_by_hand_is_the_compiled_step() -> None:
    params = {"w": jnp.asarray(drawn(0)["matrix"])}
    transform = made("adamw-auto")
    state = transform.init(params)
    eager = transform.update(params, state, params)
    found = jax.jit(transform.update)(params, state, params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12), eager, found)


@pytest.mark.slow_but_one(among=9)
@every_form
def test_injected_numbers_do_what_given_ones_do(form: str) -> None:
    params, grads = arrays(0, "float64"), [arrays(5 + t, "float64") for t in range(3)]
    options = dict(b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.1)
    if form in ("adamw", "muon"):
        options |= dict(gamma=0.05, clip=0.5)
    plain = mars(0.02, **{**FORMS[form], **options})
    injected = optax.inject_hyperparams(mars)(0.02, **{**FORMS[form], **options})
    ends = []
    for transform in (plain, injected):
        x, state = params, transform.init(params)
        update = jax.jit(lambda g, s, p, t=transform: t.update(g, s, p, **extra(form, g)))
        for g in grads:
            updates, state = update(g, state, x)
            x = optax.apply_updates(x, updates)
        ends.append(x)
    assert {"learning_rate", "b1", "b2", "eps", "weight_decay"} <= state.hyperparams.keys()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10), *ends)


def test_an_injected_number_can_be_changed_between_steps() -> None:
    params = arrays(0, "float64")
    transform = optax.inject_hyperparams(mars)(0.02, gamma=0.05, clip=None)
    update = jax.jit(transform.update)
    grads = [arrays(1, "float64"), arrays(2, "float64")]
    _, state = update(grads[0], transform.init(params), params)
    state.hyperparams["gamma"] = jnp.asarray(0.1, jnp.float64)
    state.hyperparams["learning_rate"] = jnp.asarray(0.04, jnp.float64)
    found, _ = update(grads[1], state, params)
    assert update._cache_size() == 1
    by_hand = [mars(lr, gamma=gamma, clip=None) for lr, gamma in ((0.02, 0.05), (0.04, 0.1))]
    _, state = step_of(by_hand[0], grads[0], params)
    expected, _ = jax.jit(by_hand[1].update)(grads[1], state, params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), found, expected)


@pytest.mark.slow_but_one(among=4)
@every_form
def test_trees_of_any_kind_none_and_empty_arrays_are_taken(form: str) -> None:
    grads = ({"w": jnp.ones((3, 2)), "none": None}, [jnp.ones(2), jnp.zeros((0, 4))], None)
    transform = made(form)
    state = transform.init(grads)
    updates, after = step_of(transform, grads, grads, **extra(form, grads))
    assert jax.tree.structure(updates) == jax.tree.structure(grads)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((updates, after)))


@every_form
def test_a_tree_without_arrays_is_taken(form: str) -> None:
    transform = made(form)
    updates, _ = transform.update({}, transform.init({}), {}, **extra(form, {}))
    assert updates == {}


@pytest.mark.slow_but_one(among=2)
@every_form
def test_zero_gradients_move_nothing_but_the_decay(form: str) -> None:
    params, transform = arrays(0), made(form, weight_decay=0.5)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = step_of(transform, zero, params, **extra(form, zero))
    jax.tree.map(lambda u, p: np.testing.assert_allclose(u, -0.01 * p, rtol=1e-6), updates, params)


@pytest.mark.slow_but_one
@every_form
def test_it_finds_the_bottom_of_a_bowl(form: str) -> None:
    target = {"w": jnp.asarray(drawn(3)["matrix"]), "b": jnp.asarray([1.0, -2.0])}
    schedule = optax.cosine_decay_schedule(0.3, 150)
    transform = mars(schedule, weight_decay=0.0, **FORMS[form])

    def loss(x: Any) -> Any:
        return sum(jnp.sum((x[k] - target[k]) ** 2) for k in target)

    def step(carry: Any, _: None) -> Any:
        x, before, state = carry
        grads = jax.grad(loss)(x)
        more = {"previous_grads": jax.grad(loss)(before)} if "exact" in form else {}
        updates, state = transform.update(grads, state, x, **more)
        return (optax.apply_updates(x, updates), x, state), None

    x = jax.tree.map(jnp.zeros_like, target)
    (end, _, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, length=150))((x, x, transform.init(x)))
    assert loss(end) < 0.01 * loss(x)


def test_state_is_kept_in_bfloat16_where_asked() -> None:
    params = arrays(0)
    state = scale_by_mars(state_dtype=jnp.bfloat16).init(params)
    assert {x.dtype for x in jax.tree.leaves((state.mu, state.nu, state.last_grad))} == {
        jnp.dtype(jnp.bfloat16)
    }
    mixed = scale_by_mars(last_grad_dtype=jnp.bfloat16).init(params)
    assert {x.dtype for x in jax.tree.leaves(mixed.mu)} == {jnp.dtype(jnp.float32)}
    assert {x.dtype for x in jax.tree.leaves(mixed.last_grad)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.slow
def test_bfloat16_state_follows_the_float32_run() -> None:
    params = arrays(0)
    ends = []
    for dtype in (None, jnp.bfloat16):
        transform = mars(0.01, state_dtype=dtype)
        x, state = params, transform.init(params)
        update = jax.jit(transform.update)
        for grads in gradients(20):
            updates, state = update(jax.tree.map(jnp.float32, grads), state, x)
            x = optax.apply_updates(x, updates)
        ends.append(x)
    moved = jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), ends[0], params)
    apart = jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), *ends)
    assert all(0 < a < 0.05 * m for a, m in zip(apart.values(), moved.values(), strict=True))


def test_bytes_of_the_state_are_those_of_its_buffers() -> None:
    params = {"w": jnp.zeros((64, 64), jnp.float32)}
    size = {
        form: sum(x.nbytes for x in jax.tree.leaves(scale_by_mars(**options).init(params)))
        for form, options in {
            "approx": {},
            "folded": dict(correction="folded"),
            "muon": dict(rule="muon", correction="folded"),
        }.items()
    }
    assert size == {"approx": 3 * 2**14 + 4, "folded": 2 * 2**14 + 4, "muon": 2**14 + 4}


def test_plain_leaves_get_adamw_and_no_correction() -> None:
    params = {"embed": {"w": jnp.ones((4, 3))}, "head": jnp.ones((3, 4)), "layer": jnp.ones((3, 3))}
    transform = mars(
        0.1, rule="muon", plain=by_name("embed", "^head$"), learning_rate_1d=0.01, weight_decay=0.0
    )
    updates, state = step_of(transform, params, params)
    np.testing.assert_allclose(updates["embed"]["w"], -0.01, rtol=1e-6)
    np.testing.assert_allclose(updates["head"], -0.01, rtol=1e-6)
    kept = state.inner_states["plain"].inner_state[0]
    assert isinstance(kept, MarsState)
    assert kept.last_grad is None
    assert updates["layer"].min() != pytest.approx(-0.01)


@pytest.mark.parametrize("whole", [False, True])
def test_decay_mask_is_a_tree_or_a_function(whole: bool) -> None:
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 2)), "v": jnp.ones(2), "u": jnp.ones(2)}
    decayed = {"a": True, "b": False, "v": True, "u": False}
    mask = decayed if whole else by_name("a", "v")
    transform = mars(0.1, weight_decay=0.5, mask=mask)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = step_of(transform, zero, params)
    for name, update in updates.items():
        np.testing.assert_allclose(update, -0.05 if decayed[name] else 0.0, rtol=1e-6)


def test_it_goes_into_chains_and_partitions_of_optax() -> None:
    params = arrays(0)
    labels = {name: "ours" if value.ndim >= 2 else "sgd" for name, value in params.items()}
    ours = optax.chain(optax.clip_by_global_norm(1.0), mars(0.02, rule="muon"))
    transform = optax.partition({"ours": ours, "sgd": optax.sgd(0.1)}, labels)
    updates, _ = step_of(transform, params, params)
    np.testing.assert_allclose(updates["vector"], -0.1 * params["vector"], rtol=1e-6)
    matrices = {name: value for name, value in params.items() if value.ndim >= 2}
    alone, _ = step_of(ours, matrices, matrices)
    for name, update in alone.items():
        np.testing.assert_allclose(updates[name], update, rtol=1e-5)


def test_optax_finds_what_is_shaped_like_the_parameters() -> None:
    params = arrays(0)
    transform = mars(0.02, gamma="auto")
    marked = optax.tree.map_params(
        transform, lambda _: "like", transform.init(params), transform_non_params=lambda _: "other"
    )
    assert jax.tree.leaves(marked).count("like") == 2 * len(params)


def test_multi_steps_and_apply_if_finite_wrap_it() -> None:
    params = {"w": jnp.ones((2, 3))}
    wrapped = optax.MultiSteps(optax.apply_if_finite(mars(0.1), 3), every_k_schedule=2)
    state = wrapped.init(params)
    update = jax.jit(wrapped.update)
    first, state = update(params, state, params)
    second, state = update(params, state, params)
    np.testing.assert_array_equal(first["w"], 0.0)
    assert float(second["w"].max()) < 0

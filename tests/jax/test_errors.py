"""Bad input of the JAX twin is one line; and who imports what."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mars_optim.jax import mars, scale_by_mars

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "rule": (dict(rule="moun"), "rule='moun' must be one of .*; did you mean 'muon'"),
    "gamma": (dict(gamma=-0.1), r"gamma=-0\.1 must be a finite number of at least 0 \(0 switches"),
    "gamma-word": (dict(gamma="aut"), "gamma='aut' must be 'auto', a number"),
    "gamma-least": (dict(gamma="least_error"), "gamma='least_error' is not in JAX: use 'auto', a"),
    "b1": (dict(b1=1.0), r"b1=1\.0 must be a number in \[0, 1\)"),
    "b2": (dict(b2="x"), r"b2='x' must be a number in \[0, 1\)"),
    "eps": (dict(eps=-1e-8), "eps=-1e-08 must be a finite number of at least 0"),
    "clip": (dict(clip=0.0), r"clip=0\.0 must be a finite number above 0 \(None switches it off"),
    "clip-word": (dict(clip="none"), "clip='none' must be 'auto', a number above 0, or None"),
    "clip-folded": (dict(clip=1.0, correction="folded"), "clip=1.0 cannot be combined with"),
    "correction": (dict(correction="exakt"), "did you mean 'exact'"),
    "auto-approx": (dict(gamma="auto", correction="approx"), "'auto' needs correction='folded'"),
    "auto-b1": (dict(gamma="auto", b1=0.0), "needs b1 above 0"),
    "clip_over": (dict(clip_over="all"), "clip_over='all' must be one of 'tensor', 'global'"),
    "amsgrad": (dict(amsgrad=True, rule="lion"), "amsgrad=True needs rule='adamw'"),
    "ns_steps": (dict(ns_steps=0), "ns_steps=0 must be a whole number from 1 to 99"),
    "ns_steps-array": (dict(ns_steps=jnp.asarray(5)), "static_args="),
    "ns_coefficients": (dict(ns_coefficients="simpel"), "did you mean 'simple'"),
    "ns_coefficients-two": (dict(ns_coefficients=(1, 2)), r"=\(1, 2\) must be three numbers"),
    "ns_coefficients-nan": (dict(ns_coefficients=((1, 2, 3), (1, 2, float("nan")))), "all finite"),
    "gamma-numpy": (dict(gamma=np.float64(-1)), r"gamma=-1\.0 must be a finite number"),
    "b1-numpy": (dict(b1=np.float32(1.5)), r"b1=1\.5 must be a number in \[0, 1\)"),
    "cautious": (dict(cautious="no"), "cautious='no' must be True or False"),
    "amsgrad-word": (dict(amsgrad="no"), "amsgrad='no' must be True or False"),
    "stacked": (dict(stacked=1), "stacked=1 must be True or False"),
    "state_dtype": (dict(state_dtype="int32"), "state_dtype='int32' must be None or a floating"),
    "last_grad_dtype": (dict(last_grad_dtype="half32"), "last_grad_dtype='half32' must be None"),
    "ns_dtype": (dict(ns_dtype=jnp.int8), "ns_dtype=.*int8.* must be None or a floating dtype"),
    "output_axis": (dict(output_axis="rows"), "output_axis='rows' must be one of 'first', 'last'"),
}
OF_MARS: dict[str, tuple[dict[str, Any], str]] = {
    "lr": (dict(learning_rate=-1.0), r"learning_rate=-1\.0 must be a finite number of at least 0"),
    "lr-word": (dict(learning_rate="1e-3"), "learning_rate='1e-3' must be a number, not str"),
    "decay": (dict(weight_decay=float("nan")), "weight_decay=nan must be a finite number"),
    "lr_1d": (dict(learning_rate_1d=-1), "learning_rate_1d=-1 must be a finite number of at least"),
    "lr-numpy": (dict(learning_rate=np.float64(-0.01)), r"learning_rate=-0\.01 must be a finite"),
    "decay-array": (dict(weight_decay=np.array(-1.0)), r"weight_decay=-1\.0 must be a finite"),
    "b1_1d": (dict(b1_1d=2), r"b1_1d=2 must be a number in \[0, 1\)"),
    "b2_1d": (dict(b2_1d=np.float64(1.0)), r"b2_1d=1\.0 must be a number in \[0, 1\)"),
    "optimize_1d": (dict(optimize_1d="no"), "optimize_1d='no' must be True or False"),
    "1d-auto": (
        dict(rule="muon", optimize_1d=True, gamma="auto"),
        "gamma='auto' cannot be combined with",
    ),
    "1d-global": (dict(rule="muon", optimize_1d=True, clip_over="global"), "set optimize_1d=False"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_option_is_refused_with_what_is_allowed(case: str) -> None:
    options, message = BAD[case]
    with pytest.raises(ValueError, match=message) as error:
        scale_by_mars(**options)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=message):
        mars(0.1, **options)


@pytest.mark.parametrize("case", OF_MARS)
def test_bad_option_of_the_whole_optimizer_likewise(case: str) -> None:
    options, message = OF_MARS[case]
    with pytest.raises(ValueError, match=message):
        mars(**{"learning_rate": 0.1, **options})


def test_exact_form_without_its_gradients_says_how_to_give_them() -> None:
    params = {"w": jnp.ones((2, 2))}
    transform = mars(0.1, correction="exact")
    with pytest.raises(ValueError, match=r"previous_grads=\.\.\."):
        transform.update(params, transform.init(params), params)


def test_previous_gradients_of_another_shape_are_refused() -> None:
    params = {"net": {"w": jnp.ones((4, 3))}}
    transform = scale_by_mars(correction="exact")
    state = transform.init(params)
    short = {"net": {"w": jnp.ones((1, 3))}}
    told = r"previous_grads of 'net/w' has shape \(1, 3\), but its gradient has shape \(4, 3\)"
    with pytest.raises(ValueError, match=told):
        transform.update(params, state, params, previous_grads=short)
    with pytest.raises(ValueError, match="previous_grads must be a tree as grads is"):
        transform.update(params, state, params, previous_grads={"net": {}})
    with pytest.raises(ValueError, match=r"the state of 'net/w' has shape \(4, 3\)"):
        transform.update(short, state, params, previous_grads=short)


OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "auto": ({}, dict(gamma="auto"), "without the gamma of gamma='auto'"),
    "no-auto": (dict(gamma="auto"), dict(gamma=0.1, correction="folded"), "with the gamma of"),
    "approx": (dict(gamma=0.0), dict(gamma=0.1), "without last_grad"),
    "amsgrad": ({}, dict(amsgrad=True), "without nu_max"),
    "adamw": (dict(rule="lion"), {}, "without nu"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_state_of_other_options_is_refused(case: str) -> None:
    made_with, used_with, message = OTHERS[case]
    params = {"w": jnp.ones((2, 2))}
    state = mars(0.1, **made_with).init(params)
    with pytest.raises(ValueError, match=f"state is of other options .*{message}"):
        mars(0.1, **used_with).update(params, state, params)


def test_a_state_that_has_more_goes_on() -> None:
    params = {"w": jnp.ones((2, 2))}
    state = mars(0.1, gamma=0.1, amsgrad=True).init(params)
    updates, _ = mars(0.1, gamma=0.0).update(params, state, params)
    assert jnp.isfinite(updates["w"]).all()


def test_values_that_jax_traces_are_not_checked() -> None:
    params = {"w": jnp.ones((2, 2))}

    @jax.jit
    def moved(lr: jax.Array, b1: jax.Array, row: jax.Array) -> Any:
        transform = mars(lr, b1=b1, rule="muon", gamma=b1, ns_coefficients=row)
        return transform.update(params, transform.init(params), params)[0]

    row = jnp.array([3.4445, -4.775, 2.0315])
    assert jnp.isfinite(moved(jnp.float32(-0.1), jnp.float32(0.9), row)["w"]).all()
    injected = optax.inject_hyperparams(mars)(0.1, gamma=0.05, cautious=True)
    updates, _ = jax.jit(injected.update)(params, injected.init(params), params)
    assert jnp.isfinite(updates["w"]).all()


def test_numbers_of_numpy_and_lists_of_coefficients_are_taken() -> None:
    params = {"w": jnp.ones((2, 2)), "v": jnp.ones(2)}
    row = [3.4445, -4.775, 2.0315]
    plain = mars(0.1, b1=0.9, rule="muon", ns_coefficients=tuple(row))
    wanted, _ = plain.update(params, plain.init(params), params)
    for rows in (row, [row] * 5, np.array(row)):
        other = mars(
            np.float64(0.1), b1=np.float64(0.9), rule="muon", ns_coefficients=rows,
            state_dtype=jnp.dtype("float32"), cautious=np.bool_(False),
        )  # fmt: skip
        found, _ = other.update(params, other.init(params), params)
        assert jnp.allclose(found["w"], wanted["w"], rtol=1e-5)


def test_arrays_that_a_rule_cannot_take_are_refused_in_init() -> None:
    with pytest.raises(ValueError, match="rule='muon' does not take 1-D arrays"):
        scale_by_mars(rule="muon").init({"v": jnp.ones(3)})
    with pytest.raises(ValueError, match="not of int32: mask the others"):
        scale_by_mars().init({"v": jnp.ones(3, jnp.int32)})
    with pytest.raises(ValueError, match="not of complex64"):
        mars(0.1).init({"v": jnp.ones((2, 2), jnp.complex64)})


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout


def test_the_twin_loads_no_torch_and_the_package_no_jax() -> None:
    told = "print([m for m in ('torch', 'jax', 'optax') if m in sys.modules])"
    assert python(f"import sys, mars_optim.jax; {told}") == "['jax', 'optax']\n"
    assert python(f"import sys, mars_optim.optim; {told}") == "['torch']\n"


@pytest.mark.parametrize("missing", ["jax", "optax"])
def test_without_the_extra_one_line_says_what_to_install(missing: str) -> None:
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError("No module named " + name, name=name)
sys.meta_path.insert(0, Absent())
try:
    import mars_optim.jax
except ImportError as error:
    print(error)
"""
    assert python(code) == f'{missing} is not installed: pip install "mars-optim[jax]"\n'

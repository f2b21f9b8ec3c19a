"""Bad input of the JAX twin is one line; and who imports what."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import jax.numpy as jnp
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
    "output_axis": (dict(output_axis="rows"), "output_axis='rows' must be one of 'first', 'last'"),
}
OF_MARS: dict[str, tuple[dict[str, Any], str]] = {
    "lr": (dict(learning_rate=-1.0), r"learning_rate=-1\.0 must be a finite number of at least 0"),
    "lr-word": (dict(learning_rate="1e-3"), "learning_rate='1e-3' must be a number, not str"),
    "decay": (dict(weight_decay=float("nan")), "weight_decay=nan must be a finite number"),
    "lr_1d": (dict(learning_rate_1d=-1), "learning_rate_1d=-1 must be a finite number of at least"),
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

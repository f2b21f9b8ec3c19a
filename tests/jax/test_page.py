"""The Python blocks of docs/jax.md do what the page says."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mars_optim.jax import by_name, mars
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "jax.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="docs are not in this copy")


def block(heading: str) -> str:
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return code  # type: ignore[no-any-return]


def run(code: str, **names: Any) -> dict[str, Any]:
    scope = {"jax": jax, "optax": optax, "mars": mars, "loss": loss, **names}
    exec(compile(code, str(PAGE), "exec"), scope)
    return scope


def loss(params: Any, batch: Any) -> Any:
    return jnp.sum((batch @ params["layer"]["kernel"] + params["layer"]["bias"]) ** 2)


@pytest.fixture
def params() -> Any:
    return {"layer": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}


def test_first_steps(params: Any) -> None:
    code = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert code
    scope = run(code[1], params=params)
    batch = jnp.ones((4, 3))
    after, _ = scope["step"](params, scope["state"], batch)
    assert loss(after, batch) < loss(params, batch)


def test_vectors_and_embeddings(params: Any) -> None:
    optimizer = run(block("Vectors, embeddings, layouts"))["optimizer"]
    state = optimizer.init({**params, "embed": {"table": jnp.ones((4, 2))}})
    (ruled,) = jax.tree.leaves(state.inner_states["rule"].inner_state[0].mu)
    assert ruled.shape == (3, 2)


def test_blocks_of_fused_weights() -> None:
    scope = run(block("Blocks of fused weights"), by_name=by_name)
    params = {"qkv": {"kernel": jnp.eye(4, 12)}, "embed": jnp.eye(4)}
    found = {}
    for name in ("optimizer", "by_path"):
        optimizer = scope[name]
        found[name] = jax.jit(optimizer.update)(params, optimizer.init(params), params)[0]
    assert found["optimizer"]["qkv"]["kernel"].shape == (4, 12)
    np.testing.assert_array_equal(
        found["optimizer"]["qkv"]["kernel"], found["by_path"]["qkv"]["kernel"]
    )
    scope["sized"].init({"qkv": jnp.ones((4, 3072)), "gate_up": jnp.ones((4, 6))})


def test_exact_form(params: Any) -> None:
    scope = run(block("The exact form"))
    batch, state = jnp.ones((4, 3)), scope["optimizer"].init(params)
    x, previous = params, params
    for _ in range(2):
        x, previous, state = scope["step"](x, previous, state, batch)
    assert loss(x, batch) < loss(previous, batch) < loss(params, batch)


def test_gamma_that_changes(params: Any) -> None:
    scope = run(block("A gamma that changes"))
    for name in ("optimizer", "chosen"):
        updates, _ = jax.jit(scope[name].update)(params, scope[name].init(params), params)
        assert jax.tree.structure(updates) == jax.tree.structure(params)

"""A run on a mesh of host devices beside one on a single device; prints how far they are apart.

And which arrays a step gathers on its way, by the compiled program.
"""

from __future__ import annotations

import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mars_optim.jax import mars

FORMS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "adamw-global": dict(clip_over="global", clip=0.3),
    "adamw-auto": dict(gamma="auto"),
    "adamw-exact": dict(correction="exact"),
    "adamw-cautious": dict(cautious=True),
    "lion": dict(rule="lion"),
    "muon": dict(rule="muon"),
    "shampoo": dict(rule="shampoo", correction="folded"),
    "muon-split": dict(rule="muon", split={"matrix": 3, "wide": (8, 16)}),
}
SHAPES = {"matrix": (8, 300), "wide": (64, 24), "vector": (16,)}
CUT = {"matrix": ("rows", "columns"), "wide": (None, "columns"), "vector": ("rows",)}


def drawn(seed: int, size: float = 1.0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {name: size * random.standard_normal(shape) for name, shape in SHAPES.items()}


def trained(options: dict[str, Any], place: Any) -> tuple[Any, Any, int]:
    """Parameters after 24 steps, shardings of parameters and first moment, arrays gathered."""
    params = place(drawn(0))
    transform = mars(0.01, **options)
    state = transform.init(params)

    @jax.jit
    def step(params: Any, state: Any, grads: Any, before: Any) -> Any:
        more = {"previous_grads": before} if options.get("correction") == "exact" else {}
        updates, state = transform.update(grads, state, params, **more)
        return optax.apply_updates(params, updates), state

    for t in range(24):
        grads = place(drawn(t + 1, 0.1)), place(drawn(t + 90))
        params, state = step(params, state, *grads)
    first = state.inner_states["rule"].inner_state[0]
    pairs = [(params["matrix"].sharding, first.mu["matrix"].sharding)]
    program = step.lower(params, state, *grads).compile().as_text()
    gathered = len(re.findall(r" (?:all-gather|all-to-all|collective-permute)\S*\(", program))
    return jax.tree.map(np.asarray, params), pairs, gathered


def main() -> None:
    """Compare each form on 4 x 2 devices with one device."""
    jax.config.update("jax_enable_x64", True)
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("rows", "columns"))
    shardings = {name: NamedSharding(mesh, PartitionSpec(*cut)) for name, cut in CUT.items()}
    found = {}
    for form, options in FORMS.items():
        alone, *_ = trained(options, lambda x: jax.tree.map(jnp.asarray, x))
        cut, pairs, gathered = trained(options, lambda x: jax.device_put(x, shardings))
        apart = max(float(np.abs(cut[n] - alone[n]).max()) for n in SHAPES)
        same = all(a.is_equivalent_to(b, 2) for a, b in pairs)
        found[form] = {"apart": apart, "state_is_cut_alike": same, "gathered": gathered}
        found[form]["devices"] = len(jax.devices())
    print(json.dumps(found))


if __name__ == "__main__":
    main()

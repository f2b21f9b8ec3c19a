"""A step of the JAX twin beside one of optax.adamw: both jitted, with donated parameters and state.

Each round times both, one after the other; the ratio is taken within the round. Beside it stands
the ratio of the bytes that a step must move: by hand, in elements read and written for each
parameter, and by XLA's own count of what it compiled.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mars_optim.jax import mars

# gradient, two moments and parameter are read, the moments and the parameter written
ADAMW_ELEMENTS = 7

# name: (transformation, elements of a parameter that a step reads and writes)
CONTENDERS: dict[str, tuple[Callable[[], Any], int]] = {
    "optax.lion": (lambda: optax.lion(1e-4), 5),
    "mars, gamma 0, no clip (AdamW)": (lambda: mars(1e-3, gamma=0.0, clip=None), 7),
    "mars, folded": (lambda: mars(1e-3, correction="folded"), 7),
    'mars, gamma="auto"': (lambda: mars(1e-3, gamma="auto"), 7),
    # the last gradient is read and written
    "mars, no clip": (lambda: mars(1e-3, clip=None), 9),
    # both gradients are read once more, for the norm: 9 + 2. Over all arrays XLA's program needs
    # 13: c_t written over g_{t-1} (3) and read for the norm (1), then the 9 (docs/lab-log.md)
    "mars (approx, clip per tensor)": (lambda: mars(1e-3), 11),
    "mars, clip over all": (lambda: mars(1e-3, clip_over="global"), 11),
    "mars, lion (approx, clip per tensor)": (lambda: mars(1e-4, rule="lion"), 9),
    "mars, lion, folded": (lambda: mars(1e-4, rule="lion", correction="folded"), 5),
}
COLUMNS = ["", "ratio of time", "quartiles", "of bytes, by hand", "of bytes, by XLA"]


def tensors(width: int, layers: int) -> dict[str, Any]:
    """The weights of blocks of a transformer of this width, float32."""
    random = np.random.default_rng(0)
    shapes = {"qkv": (width, 3 * width), "out": (width, width), "up": (width, 4 * width)}
    shapes |= {"down": (4 * width, width)}
    return {
        f"{layer}.{name}": jnp.asarray(random.standard_normal(shape), jnp.float32)
        for layer in range(layers)
        for name, shape in shapes.items()
    }


class Stepper:
    """A compiled step with its own parameters and state."""

    def __init__(self, transform: Any, params: Any, grads: Any) -> None:
        def step(params: Any, state: Any, grads: Any) -> Any:
            updates, state = transform.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        self.carry = jax.tree.map(jnp.copy, (params, transform.init(params)))
        self.grads = grads
        jitted = jax.jit(step, donate_argnums=(0, 1))
        self.step: Any = jitted.lower(*self.carry, grads).compile()
        costs: Any = self.step.cost_analysis()
        self.bytes = float(costs["bytes accessed"])

    def seconds(self) -> float:
        """Seconds of one step."""
        start = time.perf_counter()
        self.carry = self.step(*self.carry, self.grads)
        for leaf in jax.tree.leaves(self.carry):
            leaf.block_until_ready()
        return time.perf_counter() - start


def compare(name: str, params: Any, grads: Any, rounds: int) -> dict[str, Any]:
    """One row: ratios of time and of bytes to optax.adamw."""
    build, elements = CONTENDERS[name]
    ours, adamw = Stepper(build(), params, grads), Stepper(optax.adamw(1e-3), params, grads)
    for stepper in (ours, adamw) * 3:
        stepper.seconds()
    times = []
    for number in range(rounds):  # who begins takes turns, too
        first = ours.seconds() if number % 2 else None
        base = adamw.seconds()
        times.append((ours.seconds() if first is None else first, base))
    q1, median, q3 = statistics.quantiles([a / b for a, b in times], n=4, method="inclusive")
    return {
        "name": name,
        "ratio": {"median": median, "q1": q1, "q3": q3},
        "by_hand": elements / ADAMW_ELEMENTS,
        "by_xla": ours.bytes / adamw.bytes,
        "adamw_ms": 1e3 * statistics.median(b for _, b in times),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jax_step", description=__doc__)
    parser.add_argument("--width", type=int, default=512, help="(default: %(default)s)")
    parser.add_argument("--layers", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=21, help="at least 2 (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything here, too")
    args = parser.parse_args(argv)
    for name in ("width", "layers", "rounds"):
        least = 2 if name == "rounds" else 1
        if getattr(args, name) < least:
            parser.error(f"--{name} {getattr(args, name)} must be at least {least}")
    params = tensors(args.width, args.layers)
    grads = jax.tree.map(lambda p: 0.01 * p, params)
    count = sum(p.size for p in jax.tree.leaves(params))
    told = f"{count:,} parameters, {args.rounds} rounds, {jax.devices()[0].device_kind}, "
    told += f"jax {jax.__version__}, optax {optax.__version__}, Python "
    print(told + f"{platform.python_version()}, {datetime.date.today()}", flush=True)
    print(f"| {' | '.join(COLUMNS)} |\n|---|{'---:|' * (len(COLUMNS) - 1)}")
    rows = []
    for name in CONTENDERS:
        row = compare(name, params, grads, args.rounds)
        rows.append(row)
        ratio = row["ratio"]
        print(
            f"| {name} | {ratio['median']:.2f} | {ratio['q1']:.2f} to {ratio['q3']:.2f} | "
            f"{row['by_hand']:.2f} | {row['by_xla']:.2f} |",
            flush=True,
        )
    if args.json is not None:
        args.json.write_text(json.dumps({"what": told, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

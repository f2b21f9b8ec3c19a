"""Memory: bytes of state per parameter, what a step needs beyond them, and gradient release.

State is summed over the live optimizer's tensors. The rise during a step is that of the process's
resident memory, each variant in a fresh process: it holds what torch's allocator, a kernel or a
matrix library takes alike. Linux only; elsewhere the first table alone is made.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import mars_optim

from . import contenders, output, resident, table
from .model import GPT2, tokens
from .peers import UnavailableError, peers
from .shapes import SETS, TITLES, count, gradients, parameters

STATE_HEADER = [
    "rule",
    "correction",
    "float32",
    "stored gradient bfloat16",
    "moments bfloat16",
    "both bfloat16",
]
STEP_HEADER = ["optimizer", "parameters + gradients + state", "rise in a step", "of the parameters"]
RELEASE_HEADER = ["training step", "above parameters + state", "B/param"]
DTYPES: dict[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}
RELEASES = {
    f"MARSAdamW, {correction}, gradients {'released' if released else 'kept'}": (
        correction,
        released,
    )
    for correction, released in product(("folded", "approx"), (False, True))
}
_STEPS = 3  # to the steady state; in its third a MARS looks once whether its correction acts
_WIDE = dict(batch=1, time=64)  # tokens of the training step: gradients, not activations, rule
_SIZES = {
    "gpt2": dict(layers=12, width=768, context=1024, vocabulary=50304),
    "tiny": dict(layers=2, width=64, context=64, vocabulary=512),
}


# --- state ------------------------------------------------------------------------------------


def states() -> list[dict[str, Any]]:
    """Bytes per float32 parameter of each rule x correction x dtypes, measured and counted."""
    rows = []
    for rule, correction, state, stored in product(
        ("adamw", "lion", "shampoo", "muon"), ("approx", "folded", "exact"), DTYPES, DTYPES
    ):
        if correction == "folded" and stored != state:
            continue  # it stores none
        param = nn.Parameter(torch.zeros(64, 64))
        optimizer = mars_optim.MARS(
            [param],
            rule=rule,  # type: ignore[arg-type]
            correction=correction,  # type: ignore[arg-type]
            state_dtype=DTYPES[state],
            last_grad_dtype=None if correction == "folded" else DTYPES[stored] or torch.float32,
        )
        param.grad = torch.ones_like(param)
        optimizer.step()
        measured = contenders.state_bytes(optimizer, {"x": param}) / param.numel()
        rows.append(
            {
                "rule": rule,
                "correction": correction,
                "state": state,
                "stored": "none" if correction == "folded" else stored,
                "measured": measured,
                "counted": counted(rule, correction, state, stored),
            }
        )
    return rows


def counted(rule: str, correction: str, state: str, stored: str) -> int:
    """Bytes per parameter by the definition of the method: moments, gradient, last parameters."""
    size = {"float32": 4, "bfloat16": 2}
    moments = (2 if rule == "adamw" else 1) * size[state]
    gradient = 0 if correction == "folded" else size[stored]
    return moments + gradient + (4 if correction == "exact" else 0)


# --- the rise during a step ---------------------------------------------------------------------


def rises(tensors: str, names: list[str], official: Path | None) -> list[dict[str, Any]]:
    """Rise of memory for each contender, in a process of its own."""
    rows = []
    for name in names:
        options = ["--official", str(official)] if official else []
        arguments = ["--one", name, "--tensors", tensors, *options]
        row = resident.in_fresh_process("benchmarks.memory", *arguments)
        rows.append({"name": name, **row})
        print(f"  {name}: {row.get('rise', row.get('error', row.get('why')))}", flush=True)
    return rows


def one_rise(name: str, tensors: str, official: Path | None) -> dict[str, Any]:
    """Step a contender to its steady state, then once more under watch."""
    contender = {c.name: c for c in everybody(official)}[name]
    shapes = SETS[tensors]()
    params, grads = parameters(shapes), gradients(shapes)
    try:
        optimizer = contender.build(params)
    except UnavailableError as why:
        return {"why": str(why)}

    def step() -> None:
        for key, param in params.items():
            param.grad = grads[key]
        optimizer.step()

    for _ in range(_STEPS):
        step()
    size = 4 * count(shapes)
    held = contenders.state_bytes(optimizer, params) + 2 * size
    return {"kind": contender.kind, "held": held, "rise": resident.rise(step), "parameters": size}


def everybody(official: Path | None) -> list[contenders.Contender]:
    """Whose step can be taken alone, Newton-Schulz too."""
    known = [contenders.baseline(), *contenders.ours(), *peers(official)]
    return [c for c in known if c.before is None]


# --- gradient release ---------------------------------------------------------------------------


def releases(tensors: str, names: list[str]) -> list[dict[str, Any]]:
    """The peak of a training step above parameters and state, with gradients kept and released."""
    rows = []
    for name in names:
        arguments = ["--release", name, "--tensors", tensors]
        row = resident.in_fresh_process("benchmarks.memory", *arguments)
        rows.append({"name": name, **row})
        print(f"  {name}: {row.get('rise', row.get('error'))}", flush=True)
    return rows


def one_release(name: str, tensors: str) -> dict[str, Any]:
    """Forward, backward and step of a GPT-2 under watch, from no gradients to none."""
    correction, released = RELEASES[name]
    size = _SIZES["gpt2" if tensors == "gpt2" else "tiny"]
    torch.manual_seed(0)
    model = GPT2(**size)
    optimizer = mars_optim.MARSAdamW(model.parameters(), correction=correction)  # type: ignore[arg-type]
    if released:
        mars_optim.release_gradients(optimizer)
    batch: Tensor = tokens(vocabulary=size["vocabulary"], **_WIDE)

    def train() -> None:
        model.loss(batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(_STEPS):
        train()
    nbytes = sum(p.nbytes for p in model.parameters())
    return {"rise": resident.rise(train), "parameters": nbytes}


# --- the command ---------------------------------------------------------------------------------


def state_table(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Rules and corrections downwards, dtypes across; a value that is not the counted is shown."""
    cells: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        got, wanted = f"{row['measured']:g}", f"{row['counted']:g}"
        line = cells.setdefault((row["rule"], row["correction"]), [])
        line.append(got if got == wanted else f"{got} (counted {wanted})")
        if row["stored"] == "none" and row["state"] == "float32":
            line += ["-", "-"]
    return [[rule, correction, *line] for (rule, correction), line in cells.items()]


def step_cells(row: dict[str, Any]) -> list[str]:
    """One row of the second."""
    share = row["rise"] / row["parameters"]
    return [row["name"], _mebibytes(row["held"]), _mebibytes(row["rise"]), f"{100 * share:.1f} %"]


def release_cells(row: dict[str, Any]) -> list[str]:
    """One row of the third."""
    per_parameter = 4 * row["rise"] / row["parameters"]
    return [row["name"], _mebibytes(row["rise"]), f"{per_parameter:.1f}"]


def _mebibytes(n: float) -> str:
    return f"{n / 2**20:,.0f} MiB"


def main(argv: list[str]) -> None:
    """Measure, print the tables, write JSON."""
    options = output.parser("memory", __doc__)
    options.add_argument("--only", action="append", default=[], metavar="PIECE", help="of a name")
    options.add_argument("--slow", action="store_true", help="Newton-Schulz too: seconds per step")
    options.add_argument("--official", type=Path, help="checkout of github.com/AGI-Arena/MARS")
    options.add_argument("--one", metavar="NAME", help="one rise, in this process, as JSON")
    options.add_argument("--release", metavar="NAME", help="one release, likewise")
    args = options.parse_args(argv)
    if args.one:
        print(json.dumps(one_rise(args.one, args.tensors, args.official)))
        return
    if args.release:
        print(json.dumps(one_release(args.release, args.tensors)))
        return
    known = [c.name for c in everybody(args.official) if args.slow or not c.slow]
    names = output.chosen([*known, *RELEASES], args.only)
    result = output.start(args, "memory")
    result |= {"tensors": args.tensors, "title": TITLES[args.tensors], "states": states()}
    watched = resident.supported()
    result["steps"] = (
        rises(args.tensors, [n for n in names if n in known], args.official) if watched else []
    )
    result["releases"] = (
        releases(args.tensors, [n for n in names if n in RELEASES]) if watched else []
    )
    show(result)
    if not watched:
        print("\nnot measured: rises of resident memory, which need Linux's /proc/self/clear_refs")
    output.write(result, args.json)


def show(result: dict[str, Any]) -> None:
    """The three tables, and what is missing from them."""
    print("\nstate, bytes per float32 parameter\n")
    print(table.aligned(STATE_HEADER, state_table(result["states"])))
    for key, header, cells in (
        ("steps", STEP_HEADER, step_cells),
        ("releases", RELEASE_HEADER, release_cells),
    ):
        rows = result[key]
        print(f"\n{result['title']}: {key}\n")
        print(table.aligned(header, [cells(row) for row in rows if "rise" in row]))
        for row in rows:
            if "rise" not in row:
                print(f"not measured: {row['name']}: {row.get('why', row.get('error'))}")


if __name__ == "__main__":
    output.run(main)

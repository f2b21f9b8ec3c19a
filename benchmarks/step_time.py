"""Time of an optimizer's step, ours and the installed peers', as a ratio to torch's fused AdamW.

Each contender takes turns with torch.optim.AdamW(fused=True) on the same parameters and gradients.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from . import machine, output, table
from .clock import Field
from .contenders import Contender, baseline, ours
from .output import UserError
from .peers import UnavailableError, peers
from .shapes import SETS, TITLES, count, gradients, parameters

HEADER = ["optimizer", "step", "ratio", "quartiles", "floor", "state B/param", "p.grad"]
NOTE = (
    "ratio: to torch's fused AdamW, median over rounds of the ratio within a round.\n"
    "floor: of the bytes that the method must move, at the best bandwidth seen beside it."
)


def measure(
    contenders: list[Contender], *, tensors: str, rounds: int, grad_norm: float
) -> dict[str, Any]:
    """Rows of all contenders that work here, and for the others why not."""
    shapes = SETS[tensors]()
    copy = machine.Copy() if tensors == "gpt2" else None  # the others stay in the cache
    field = Field(parameters(shapes), gradients(shapes, norm=grad_norm), baseline(), copy)
    rows, skipped = [], []
    for contender in contenders:
        try:
            row = field.compare(contender, rounds=rounds)
        except UnavailableError as why:
            skipped.append({"name": contender.name, "why": str(why)})
        except Exception as error:  # a peer's own failure must not end the others' measurement
            if contender.kind != "peer":
                raise
            why_not = f"{type(error).__name__}: {error}".splitlines()[0]
            skipped.append({"name": contender.name, "why": why_not})
        else:
            rows.append(row)
            print(f"  {row['name']}: {row['ratio']['median']:.2f}", flush=True)
    return {
        "tensors": tensors,
        "title": TITLES[tensors],
        "count": len(shapes),
        "parameters": count(shapes),
        "gradient_norm": grad_norm,
        "rows": rows,
        "skipped": skipped,
    }


def cells(row: dict[str, Any]) -> list[str]:
    """One row of the table."""
    ratio = row["ratio"]
    return [
        row["name"],
        table.milliseconds(row["seconds"]["median"]),
        f"{ratio['median']:.2f}",
        f"{ratio['q1']:.2f} to {ratio['q3']:.2f}",
        table.number(row["floor_ratio"]),
        table.number(row["state_bytes"], digits=1),
        "kept" if row["gradients_kept"] else "changed",
    ]


def head(result: dict[str, Any]) -> str:
    """The tensors that were stepped, in a sentence."""
    text = (
        f"{result['title']}: {result['count']} tensors, {result['parameters']:,} float32 parameters"
    )
    for key, name in (("copy_bandwidth", "copy_"), ("baseline_bandwidth", "fused AdamW")):
        seen = [row[key] for row in result["rows"] if row[key] is not None]
        if seen:
            text += f"; {name} moves {statistics.median(seen) / 1e9:.0f} GB/s"
    return text


def contenders(args: argparse.Namespace) -> list[Contender]:
    """Those asked for."""
    if args.official is not None and not args.official.is_dir():
        raise UserError(f"--official {args.official}: there is no such folder")
    known = [baseline(), *ours(), *peers(args.official)]
    if not args.slow:
        known = [c for c in known if not c.slow]
    names = output.chosen([c.name for c in known], args.only)
    return [c for c in known if c.name in names]


def main(argv: list[str]) -> None:
    """Measure, print the table, write JSON and plot."""
    options = output.parser("step_time", __doc__)
    options.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    options.add_argument("--only", action="append", default=[], metavar="PIECE", help="of a name")
    options.add_argument("--slow", action="store_true", help="Newton-Schulz too: seconds per step")
    options.add_argument("--official", type=Path, help="checkout of github.com/AGI-Arena/MARS")
    options.add_argument(
        "--grad-norm",
        type=float,
        default=1.0,
        help="of all gradients together (default: 1, as clipped; 1000 makes MARS's clip bite)",
    )
    options.add_argument("--plot", type=Path, metavar="OUT.svg", help="needs matplotlib")
    args = options.parse_args(argv)
    if args.rounds < 2:
        raise UserError(f"--rounds {args.rounds} must be at least 2: quartiles need two values")
    asked = contenders(args)
    result = output.start(args, "step_time")
    result |= measure(asked, tensors=args.tensors, rounds=args.rounds, grad_norm=args.grad_norm)
    print(f"\n{head(result)}, {args.rounds} rounds\n")
    print(table.aligned(HEADER, [cells(row) for row in result["rows"]]))
    print(f"\n{NOTE}")
    for absent in result["skipped"]:
        print(f"not measured: {absent['name']}: {absent['why']}")
    output.write(result, args.json)
    if args.plot:
        from .figures import step_time

        args.plot.write_text(step_time([result]))


if __name__ == "__main__":
    output.run(main)

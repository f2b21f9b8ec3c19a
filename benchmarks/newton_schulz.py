"""Cost of orthogonalising GPT-2 small's hidden matrices, beside the model's own step.

Each distinct shape is timed and multiplied by how often it occurs. Variants: matrix by matrix or
equal shapes as one batch, bfloat16 or float32, the plain iteration or the Gram form.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mars_optim.optim.orthogonalize import newton_schulz

from . import output, table
from .model import GPT2, tokens
from .output import UserError
from .shapes import SETS, TITLES, Shape, gradients, hidden

HEADER = ["Newton-Schulz, 5 steps", "all matrices", "of the model's step", "AdamW steps", "error"]
_SIZES = {
    "gpt2": dict(layers=12, width=768, context=1024, vocabulary=50304),
    "tiny": dict(layers=1, width=16, context=8, vocabulary=32),
}


def variants() -> dict[str, Callable[[Tensor], Tensor]]:
    """Name -> what turns a matrix, or a stack of them, into its orthogonal factor."""
    return {
        "plain, bfloat16": lambda m: newton_schulz(m, dtype=torch.bfloat16),
        "plain, float32": lambda m: newton_schulz(m, dtype=torch.float32),
        "Gram form, float32": lambda m: newton_schulz(m, dtype=torch.float32, gram=True),
        "Gram form, bfloat16": lambda m: newton_schulz(m, dtype=torch.bfloat16, gram=True),
    }


def measure(*, tensors: str, batch: int, length: int, stack: int, rounds: int) -> dict[str, Any]:
    """Seconds of a training step, of fused AdamW, and of each variant on all hidden matrices."""
    shapes = SETS[tensors]()
    wanted = Counter(shape for name, shape in shapes.items() if hidden(name, shape))
    rows = []
    for name, function in variants().items():
        for batched in (False, True):
            parts = [
                (times, *_one_shape(function, shape, min(stack, times), batched, rounds))
                for shape, times in wanted.items()
            ]
            how = f"batches of {stack}" if batched else "one by one"
            rows.append(
                {
                    "name": f"{name}, {how}",
                    "seconds": sum(times * seconds for times, seconds, _ in parts),
                    "error": max(error for _, _, error in parts),
                }
            )
            print(f"  {rows[-1]['name']}: {rows[-1]['seconds']:.2f} s", flush=True)
    model, adamw = training_step(tensors, batch=batch, length=length, rounds=rounds)
    return {
        "tensors": tensors,
        "title": TITLES[tensors],
        "matrices": sum(wanted.values()),
        "tokens": batch * length,
        "model_seconds": model,
        "adamw_seconds": adamw,
        "rows": rows,
    }


def _one_shape(
    function: Callable[[Tensor], Tensor], shape: Shape, stack: int, batched: bool, rounds: int
) -> tuple[float, float]:
    """Seconds per matrix, and the relative error against float64 of the first."""
    made = gradients({str(i): shape for i in range(stack)})
    matrices = list(made.values())

    def run() -> list[Tensor]:
        if batched:
            return list(function(torch.stack(matrices)))
        return [function(m) for m in matrices]

    exact = newton_schulz(matrices[0].double())
    error = float((run()[0].double() - exact).norm() / exact.norm())
    return _median_seconds(run, rounds) / stack, error


def training_step(tensors: str, *, batch: int, length: int, rounds: int) -> tuple[float, float]:
    """Seconds of forward and backward, and of fused AdamW's step, on the model of these tensors."""
    size = _SIZES[tensors]
    torch.manual_seed(0)
    model = GPT2(**size)
    data = tokens(batch=batch, time=length, vocabulary=size["vocabulary"])

    def train() -> None:
        model.zero_grad()
        model.loss(data).backward()  # type: ignore[no-untyped-call]

    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    train()
    optimizer.step()
    return _median_seconds(train, rounds), _median_seconds(optimizer.step, rounds)


def _median_seconds(action: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def cells(row: dict[str, Any], result: dict[str, Any]) -> list[str]:
    """One row of the table."""
    return [
        row["name"],
        f"{row['seconds']:.2f} s",
        f"{row['seconds'] / result['model_seconds']:.2f}",
        f"{row['seconds'] / result['adamw_seconds']:.0f}",
        f"{row['error']:.0e}",
    ]


def head(result: dict[str, Any]) -> str:
    """Reference of the ratios."""
    return (
        f"{result['title']}: {result['matrices']} hidden matrices; forward and backward of "
        f"{result['tokens']:,} tokens {result['model_seconds']:.2f} s, fused AdamW's step "
        f"{table.milliseconds(result['adamw_seconds'])}"
    )


def main(argv: list[str]) -> None:
    """Measure, print the table, write JSON."""
    options = output.parser("newton_schulz", __doc__, tensors=False)
    options.add_argument("--tensors", choices=_SIZES, default="gpt2", help="(default: gpt2)")
    options.add_argument("--batch", type=int, default=2, help="sequences of a training step")
    options.add_argument("--length", type=int, default=256, help="tokens of each")
    options.add_argument("--stack", type=int, default=4, help="matrices in a batch")
    options.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    args = options.parse_args(argv)
    for name in ("batch", "length", "stack", "rounds"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)} must be at least 1")
    context = _SIZES[args.tensors]["context"]
    if args.length > context:
        raise UserError(f"--length {args.length} is more than the model's context, {context}")
    result = output.start(args, "newton_schulz")
    result |= measure(
        tensors=args.tensors,
        batch=args.batch,
        length=args.length,
        stack=args.stack,
        rounds=args.rounds,
    )
    print(f"\n{head(result)}\n")
    print(table.aligned(HEADER, [cells(row, result) for row in result["rows"]]))
    print("\nerror: relative, of the first matrix, against the same iteration in float64.")
    output.write(result, args.json)


if __name__ == "__main__":
    output.run(main)

"""Newton-Schulz's coefficient sets and its Gram form: errors and cost, into docs/newton-schulz.md.

    python -m benchmarks.coefficients

Errors are of matrices with known singular values; times are ratios in one run, turn by turn.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from mars_optim.optim import orthogonalize
from mars_optim.optim.orthogonalize import newton_schulz, runs
from mars_optim.optimizer_options import polynomials

from . import machine, output, table

PAGE = Path(__file__).parents[1] / "docs" / "newton-schulz.md"
WHERE = {
    "simple": "Keller Jordan's Muon, torch.optim.Muon; the default",
    "quintic": "You Jiacheng, modded-nanogpt; Emerging-Optimizers' name",
    "polar_express": "arXiv 2505.16932, Alg. 1",
    "cans": "arXiv 2506.10935, see above; each x divided by 1.01",
    "deepseek_v4": "DeepSeek-V4's report, as quoted in Emerging-Optimizers",
}
SETS = [
    ("simple", 5), ("quintic", 5), ("polar_express", 5), ("polar_express", 8), ("cans", 5),
    ("cans", 7), ("deepseek_v4", 10),
]  # fmt: skip
SHAPES = [(128, 128), (128, 512), (512, 128), (192, 288)]
ASPECTS = [1, 1.5, 2, 3, 4, 8]
SMALL, NUMBER = [(6, 2), (4, 16), (8, 32)], 1000  # shapes of small matrices, and how many of each
OLD_MARGIN = 0.75  # that A could be off by until 2026-11-30


def matrices(rows: int, cols: int) -> dict[str, Tensor]:
    """Matrices in float64 of this shape, by their singular values."""
    n, double = min(rows, cols), torch.float64
    w = torch.randn(rows, cols, generator=torch.Generator().manual_seed(0), dtype=double)
    u, _, vh = torch.linalg.svd(w, full_matrices=False)
    half, one = torch.ones(n, dtype=double), torch.full((n,), 1e-3, dtype=double)
    half[n // 2 :], one[0] = 1e-12, 1.0
    values = {
        "condition 1e4": torch.logspace(0, -4, n, dtype=double),
        "condition 1e8": torch.logspace(0, -8, n, dtype=double),
        "half of it singular": half,
        "one large value": one,
    }
    return {"random": w} | {name: u @ (s[:, None] * vh) for name, s in values.items()}


def value_range(name: str, steps: int) -> tuple[float, float]:
    """The least and the greatest of what becomes of singular values in [0.001, 1]."""
    x = torch.logspace(-3, 0, 4001, dtype=torch.float64)
    for a, b, c in polynomials(name, steps):
        x = a * x + b * x**3 + c * x**5
    return float(x.min()), float(x.max())


def orthogonality_error(x: Tensor) -> float:
    """|X X^T - I| / sqrt(n), of the smaller side."""
    x = x.double()
    gram = x @ x.mT if x.shape[0] <= x.shape[1] else x.mT @ x
    return float((gram - torch.eye(len(gram), dtype=x.dtype)).norm()) / math.sqrt(len(gram))


def set_rows() -> list[list[str]]:
    """The first table."""
    rows = []
    for name, steps in SETS:
        worst = {"random": 0.0, "random, bfloat16": 0.0, "condition 1e4": 0.0}
        for shape in SHAPES:
            made = matrices(*shape)
            for key in worst:
                m = made[key.partition(",")[0]]
                half = key != "random"
                dtype = torch.bfloat16 if half else torch.float64
                x = newton_schulz(m, steps=steps, coefficients=name, dtype=dtype)
                worst[key] = max(worst[key], orthogonality_error(x))
        low, high = value_range(name, steps)
        errors = [f"{error:.1e}" for error in worst.values()]
        values = [f"{steps / 5:.1f}", f"{low:.3f}", f"{high:.3f}"]
        rows.append([f'"{name}"', WHERE[name], str(steps), *values, *errors])
    return rows


def small_matrices(number: int) -> list[Tensor]:
    """Stacks of so many small matrices, whose singular values fall by a factor of 1 to 1e6."""
    generator = torch.Generator().manual_seed(0)
    stacks = []
    for shape, decades in itertools.product(SMALL, (0.0, 1.2, 3.0, 4.0, 6.0)):
        x = torch.randn(number, *shape, generator=generator)
        u, s, vh = torch.linalg.svd(x, full_matrices=False)
        falling = torch.logspace(0, -decades, s.shape[-1])
        stacks.append(u @ (falling[:, None] * vh) if decades else x)
    return stacks


def greatest(stack: Tensor, **options: Any) -> float:
    """The greatest singular value of all results; one that is not finite counts as infinite."""
    found = newton_schulz(stack, **options).double()
    return float(torch.linalg.matrix_norm(found, 2).max()) if found.isfinite().all() else math.inf


def greatest_rows() -> list[list[str]]:
    """The second table: the greatest value in the plain form, and in the Gram form's runs."""
    rows, stacks = [], small_matrices(NUMBER)
    for name, steps in SETS:
        row = [f'"{name}", {steps} steps']
        for dtype in (torch.float32, torch.bfloat16):
            options = {"steps": steps, "coefficients": name, "dtype": dtype}
            found = [max(greatest(x, **options) for x in stacks)]
            found.append(max(greatest(x, **options, gram=True) for x in stacks))
            with mock.patch.object(orthogonalize, "_MARGIN", OLD_MARGIN):
                found.append(max(greatest(x, **options, gram=True) for x in stacks))
            row += [_value(value) for value in found]
        rows.append(row)
    return rows


def _value(value: float) -> str:
    return "not finite" if math.isinf(value) else f"{value:.2f}" if value < 10 else f"{value:.0e}"


def digit_rows() -> list[list[str]]:
    """The third table: digits of each set over kinds of matrices."""
    rows = []
    for name, steps in SETS:
        row = [f'"{name}", {steps} steps']
        polys = polynomials(name, steps)
        row.append(" + ".join(str(len(run)) for run in runs(polys, torch.float32)))
        for kind in matrices(2, 2):
            errors = [0.0, 0.0, 0.0]
            for shape in SHAPES:
                single = matrices(*shape)[kind].float()
                exact = newton_schulz(single.double(), steps=steps, coefficients=name)
                for i, found in enumerate(_forms(single, name, steps)):
                    error = float((found.double() - exact).norm() / exact.norm())
                    errors[i] = max(errors[i], error if math.isfinite(error) else math.inf)
            row.append(", ".join(_digits(error) for error in errors))
        rows.append(row)
    return rows


def _forms(m: Tensor, name: str, steps: int) -> list[Tensor]:
    """In float32: plain, Gram with restarts, Gram without."""
    options: Any = {"steps": steps, "coefficients": name, "dtype": torch.float32}
    found = [newton_schulz(m, **options, gram=gram) for gram in (False, True)]
    with mock.patch.object(orthogonalize, "runs", lambda steps, _: [steps]):
        return [*found, newton_schulz(m, **options, gram=True)]


def _digits(error: float) -> str:
    return "none" if error >= 1 else f"{-math.log10(error):.1f}"


def time_rows(rounds: int) -> list[list[str]]:
    """The fourth table: ratios of times, turn by turn."""
    row = ["float32"]
    for aspect in ASPECTS:
        m = torch.randn(256, int(256 * aspect), generator=torch.Generator().manual_seed(0))
        ratios = []
        for _ in range(rounds + 1):
            plain, gram = (_seconds(m, gram=gram) for gram in (False, True))
            ratios.append(gram / plain)
        ratios = sorted(ratios[1:])  # the first round warms up
        middle = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        row.append(f"{statistics.median(ratios):.2f} ({middle[0]:.2f} to {middle[1]:.2f})")
    return [row]


def _seconds(m: Tensor, *, gram: bool) -> float:
    start = time.perf_counter()
    newton_schulz(m, dtype=torch.float32, gram=gram)
    return time.perf_counter() - start


def filled(text: str, rounds: int) -> str:
    """The page with its tables made anew."""
    kinds = list(matrices(2, 2))
    header = ["set", "from", "steps", "cost", "least", "greatest", "error", "error, bfloat16"]
    forms = ["plain", "Gram form", "as it was"]
    parts = {
        "sets": table.markdown([*header, "condition 1e4, bfloat16"], set_rows()),
        "greatest": table.markdown(
            ["set", *(f"{d}: {form}" for d in ("float32", "bfloat16") for form in forms)],
            greatest_rows(),
        ),
        "digits": table.markdown(["set", "runs", *kinds], digit_rows()),
        "times": table.markdown(
            ["", *(f"1 : {aspect:g}" for aspect in ASPECTS)], time_rows(rounds)
        ),
        "machine": machine.sentence(machine.describe()),
    }
    return output.between_markers(text, parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coefficients", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="of each time (default: 15)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    text = filled(PAGE.read_text(encoding="utf-8"), max(1, given.rounds))
    PAGE.write_text(text, encoding="utf-8")

"""Newton-Schulz's coefficient sets and its Gram form: errors and cost, into docs/newton-schulz.md.

    python -m benchmarks.coefficients

Errors are of matrices with known singular values; times are ratios in one run, turn by turn.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

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


def digit_rows() -> list[list[str]]:
    """The second table: digits of each set over kinds of matrices."""
    rows = []
    for name, steps in SETS:
        row = [f'"{name}", {steps} steps']
        polys = polynomials(name, steps)
        row.append(" + ".join(str(len(run)) for run in runs(polys, torch.bfloat16)))
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
    """In bfloat16: plain, Gram with restarts, Gram without."""
    options = {"steps": steps, "coefficients": name, "dtype": torch.bfloat16}
    plain = newton_schulz(m, **options)  # type: ignore[arg-type]
    restarted = newton_schulz(m, **options, gram=True)  # type: ignore[arg-type]
    return [plain, restarted, _without_restarts(m, name, steps)]


def _without_restarts(m: Tensor, name: str, steps: int) -> Tensor:
    from unittest import mock

    from mars_optim.optim import orthogonalize

    with mock.patch.object(orthogonalize, "runs", lambda steps, _: [steps]):
        return newton_schulz(m, steps=steps, coefficients=name, dtype=torch.bfloat16, gram=True)


def _digits(error: float) -> str:
    return "none" if error >= 1 else f"{-math.log10(error):.1f}"


def time_rows(rounds: int) -> list[list[str]]:
    """The third table: ratios of times, turn by turn."""
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        row = [str(dtype).removeprefix("torch.")]
        for aspect in ASPECTS:
            m = torch.randn(256, int(256 * aspect), generator=torch.Generator().manual_seed(0))
            ratios = []
            for _ in range(rounds + 1):
                plain, gram = (_seconds(m, dtype, gram=gram) for gram in (False, True))
                ratios.append(gram / plain)
            ratios = sorted(ratios[1:])  # the first round warms up
            middle = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
            row.append(f"{statistics.median(ratios):.2f} ({middle[0]:.2f} to {middle[1]:.2f})")
        rows.append(row)
    return rows


def _seconds(m: Tensor, dtype: torch.dtype, *, gram: bool) -> float:
    start = time.perf_counter()
    newton_schulz(m, dtype=dtype, gram=gram)
    return time.perf_counter() - start


def filled(text: str, rounds: int) -> str:
    """The page with its tables made anew."""
    kinds = list(matrices(2, 2))
    header = ["set", "from", "steps", "cost", "least", "greatest", "error", "error, bfloat16"]
    parts = {
        "sets": table.markdown([*header, "condition 1e4, bfloat16"], set_rows()),
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

"""MARS on a GPU: step times against the memory's bandwidth, numbers against the oracle.

``benchmarks/gpu.sh`` runs it. ``--rehearse`` goes through the same code on a CPU with tiny tensors,
so that the script can be tested without a GPU; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW, Optimizer

import mars_optim
from mars_optim import MARSM, MARSAdamW, MARSLion

from .gpu_checks import (
    DTYPES,
    PARITY,
    Clock,
    Shape,
    gpu_tests,
    graph_step,
    make,
    memory,
    never_waits,
    parity,
    summary,
)


def gpt2_small() -> list[Shape]:
    """The 148 tensors, 124 M parameters, of GPT-2 small."""
    width = 768
    norm: list[Shape] = [(width,), (width,)]
    block: list[Shape] = [*norm, (3 * width, width), (3 * width,), (width, width), (width,)]
    block += [*norm, (4 * width, width), (4 * width,), (width, 4 * width), (width,)]
    return [(50257, width), (1024, width), *block * 12, *norm]


SHAPES: dict[str, list[Shape]] = {
    "GPT-2 small": gpt2_small(),
    "300 small tensors": [(32, 32)] * 300,
}
TINY: dict[str, list[Shape]] = {"tiny": [(7, 5), (5,), (4, 4)]}

# An optimizer, and the bytes per float32 parameter that its step cannot do without: every tensor is
# read and written once, gradient and last gradient twice where a norm must be known first.
VARIANTS: dict[str, tuple[Callable[..., Optimizer], int | None]] = {
    "torch AdamW fused": (lambda p: AdamW(p, lr=1e-6, fused=True), 28),
    "torch AdamW foreach": (lambda p: AdamW(p, lr=1e-6, foreach=True), 28),
    "MARSAdamW": (lambda p: MARSAdamW(p, lr=1e-6), 44),
    "MARSAdamW bf16 history": (
        lambda p: MARSAdamW(p, lr=1e-6, last_grad_dtype=torch.bfloat16),
        38,
    ),
    "MARSAdamW no clip": (lambda p: MARSAdamW(p, lr=1e-6, clip=None), 36),
    "MARSAdamW folded": (lambda p: MARSAdamW(p, lr=1e-6, correction="folded"), 28),
    "MARSAdamW foreach": (lambda p: MARSAdamW(p, lr=1e-6, foreach=True), 44),
    "MARSLion": (lambda p: MARSLion(p, lr=1e-6), 36),
    "MARSLion folded": (lambda p: MARSLion(p, lr=1e-6, correction="folded"), 20),
    "MARSM": (lambda p: MARSM(p, lr=1e-6), None),
}
BASE = "torch AdamW fused"


def environment(device: str) -> dict[str, Any]:
    """Device, versions and date."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "mars_optim": mars_optim.__version__,
    }
    try:
        import triton

        found["triton"] = triton.__version__
    except ImportError:
        found["triton"] = None
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found["device"] = properties.name
        found["memory_bytes"] = properties.total_memory
        found["capability"] = f"{properties.major}.{properties.minor}"
    return found


def copy_bandwidth(device: str, numel: int, rounds: int) -> float:
    """GB/s of a device-to-device copy, bytes read and bytes written both counted."""
    clock, source = Clock(device), torch.ones(numel, device=device)
    target, times = torch.empty_like(source), []
    for _ in range(rounds):
        start = clock.now()
        target.copy_(source)
        end = clock.now()
        clock.wait()
        times.append(clock.between(start, end))
    return 2 * 4 * numel / (statistics.median(times) * 1e-3) / 1e9


def step_times(
    device: str, shapes: list[Shape], bandwidth: float, *, rounds: int, steps: int
) -> dict[str, Any]:
    """Step times of every variant, in interleaved rounds of ``steps`` steps, on the same
    parameters."""
    clock, params = Clock(device), make(device, shapes)
    numel = sum(param.numel() for param in params)
    optimizers = {name: factory(params) for name, (factory, _) in VARIANTS.items()}
    on_device: dict[str, list[float]] = {name: [] for name in optimizers}
    on_host: dict[str, list[float]] = {name: [] for name in optimizers}
    for optimizer in optimizers.values():  # compiles, and makes the state
        for _ in range(3):
            optimizer.step()
    for _ in range(rounds):
        for name, optimizer in optimizers.items():
            clock.wait()
            start, host = clock.now(), time.perf_counter()
            for _ in range(steps):
                optimizer.step()
            host = time.perf_counter() - host
            end = clock.now()
            clock.wait()
            on_device[name].append(clock.between(start, end) / steps)
            on_host[name].append(1e3 * host / steps)
    base = statistics.median(on_device[BASE])
    rows: dict[str, Any] = {}
    for name, (_, counted) in VARIANTS.items():
        row: dict[str, Any] = summary(on_device[name])
        row["host_median_ms"] = statistics.median(on_host[name])
        row["ratio"] = row["median_ms"] / base
        row["bytes_per_parameter"] = counted
        if counted is not None:
            row["bandwidth_share"] = counted * numel / (row["median_ms"] * 1e6) / bandwidth
        rows[name] = row
    return {"tensors": len(shapes), "parameters": numel, "variants": rows}


def run(*, rehearse: bool) -> dict[str, Any]:
    """Every part of the check, in one dictionary."""
    device = "cpu" if rehearse else "cuda"
    shapes, rounds, steps = (TINY, 2, 1) if rehearse else (SHAPES, 21, 10)
    bandwidth = copy_bandwidth(device, 1 << (10 if rehearse else 28), rounds)
    report: dict[str, Any] = {"rehearsal": rehearse, "environment": environment(device)}
    report["copy_bandwidth_gb_per_s"] = bandwidth
    report["parity"] = {
        f"{name}, {dtype}": parity(device, getattr(torch, dtype), settings)
        for name, settings in PARITY.items()
        for dtype in DTYPES
    }
    report["step_times"] = {
        name: step_times(device, its, bandwidth, rounds=rounds, steps=steps)
        for name, its in shapes.items()
    }
    factories = {name: factory for name, (factory, _) in VARIANTS.items()}
    report["memory_bytes_per_parameter"] = memory(device, next(iter(shapes.values())), factories)
    if not rehearse:
        report["never_waits"] = never_waits(make("cuda", SHAPES["300 small tensors"]))
        report["graph"] = {name: graph_step(its, rounds) for name, its in shapes.items()}
        report["tests"] = gpu_tests()
    return report


def table(report: dict[str, Any]) -> str:
    """The step times as text."""
    lines = [f"copy bandwidth {report['copy_bandwidth_gb_per_s']:.0f} GB/s"]
    for name, block in report["step_times"].items():
        lines.append(f"\n{name}: {block['tensors']} tensors, {block['parameters']:,} parameters")
        for variant, row in block["variants"].items():
            share = row.get("bandwidth_share")
            shown = "     " if share is None else f"{share:5.0%}"
            lines.append(
                f"  {variant:<24}{row['median_ms']:9.3f} ms  x{row['ratio']:.2f}  {shown} of copy"
            )
    wrong = [name for name, row in report["parity"].items() if not row["within"]]
    lines.append(
        f"\nparity with the float64 oracle: {'off for ' + str(wrong) if wrong else 'holds'}"
    )
    for key in ("never_waits", "graph", "tests"):
        if key in report:
            lines.append(f"{key}: {report[key]}")
    return "\n".join(lines)


def main() -> int:
    """Measure, check, write and print; 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="where the JSON goes")
    parser.add_argument("--rehearse", action="store_true", help="tiny, on the CPU, for tests")
    options = parser.parse_args()
    if not (options.rehearse or torch.cuda.is_available()):
        print(
            f"benchmarks.gpu: no CUDA GPU here (torch {torch.__version__}): nothing measured",
            file=sys.stderr,
        )
        return 2
    report = run(rehearse=options.rehearse)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))
    print(f"\nwritten to {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

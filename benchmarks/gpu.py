"""MARS on a GPU: step times against the memory's bandwidth, numbers against the oracle.

``benchmarks/gpu.sh`` runs it. ``--rehearse`` goes through the same code on a CPU with tiny tensors,
so that the script can be tested without a GPU; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW, Optimizer

import mars_optim
from mars_optim import MARSM, MARSAdamW, MARSLion
from mars_optim.files import write_json

from .gpu_checks import (
    DTYPES,
    PARITY,
    Clock,
    gpu_tests,
    graph_step,
    make,
    memory,
    never_waits,
    parity,
    summary,
)
from .shapes import Shape, gpt2

GPT2_SMALL = gpt2(vocabulary=50257)  # 148 tensors, 124 M parameters
EMBEDDINGS = GPT2_SMALL["wte"], GPT2_SMALL["wpe"]
SHAPES: dict[str, list[Shape]] = {
    "GPT-2 small": list(GPT2_SMALL.values()),
    "300 small tensors": [(32, 32)] * 300,
}
TINY: dict[str, list[Shape]] = {"tiny": [(7, 5), (5,), (4, 4)]}


def matrices_apart(params: list[torch.nn.Parameter]) -> list[dict[str, Any]]:
    """Groups for Newton-Schulz: plain AdamW for embeddings and vectors."""
    rest = [p for p in params if p.ndim < 2 or tuple(p.shape) in EMBEDDINGS]
    matrices = [p for p in params if p.ndim == 2 and tuple(p.shape) not in EMBEDDINGS]
    plain = {"params": rest, "rule": "adamw", "gamma": 0.0, "clip": None, "optimize_1d": True}
    return [group for group in ({"params": matrices}, plain) if group["params"]]


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
    "MARSAdamW auto": (lambda p: MARSAdamW(p, lr=1e-6, gamma="auto"), 28),
    "MARSAdamW foreach": (lambda p: MARSAdamW(p, lr=1e-6, foreach=True), 44),
    "MARSLion": (lambda p: MARSLion(p, lr=1e-6), 36),
    "MARSLion folded": (lambda p: MARSLion(p, lr=1e-6, correction="folded"), 20),
    "MARSM, AdamW for the rest": (lambda p: MARSM(matrices_apart(p), lr=1e-6), None),
}
BASE = "torch AdamW fused"
FAILED = "failed"


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


def step_times(device: str, shapes: list[Shape], *, rounds: int, steps: int) -> dict[str, Any]:
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
            row["gb_per_s"] = counted * numel / (row["median_ms"] * 1e6)
        rows[name] = row
    return {"tensors": len(shapes), "parameters": numel, "variants": rows}


Part = Callable[[], Any]


def parts(*, rehearse: bool) -> dict[str, Part]:
    """The checks in order: the name in the report, and what makes it."""
    device = "cpu" if rehearse else "cuda"
    shapes, rounds, steps = (TINY, 2, 1) if rehearse else (SHAPES, 21, 10)
    factories = {name: factory for name, (factory, _) in VARIANTS.items()}
    found: dict[str, Part] = {
        "copy_bandwidth_gb_per_s": partial(
            copy_bandwidth, device, 1 << (10 if rehearse else 28), rounds
        ),
        "parity": lambda: {
            f"{name}, {dtype}": parity(device, getattr(torch, dtype), settings)
            for name, settings in PARITY.items()
            for dtype in DTYPES
        },
    }
    for name, its in shapes.items():
        found[f"step_times, {name}"] = partial(step_times, device, its, rounds=rounds, steps=steps)
    biggest = next(iter(shapes.values()))
    found["memory_bytes_per_parameter"] = partial(memory, device, biggest, factories)
    if not rehearse:
        small = SHAPES["300 small tensors"]
        found["never_waits"] = lambda: never_waits(make("cuda", small))
        for name, its in shapes.items():
            found[f"graph, {name}"] = partial(graph_step, its, rounds)
        found["tests"] = gpu_tests
    return found


def run(out: Path, *, rehearse: bool) -> dict[str, Any]:
    """Every part of the check, in one dictionary; written after each.

    A part that raises has the reason in its place.
    """
    device = "cpu" if rehearse else "cuda"
    report: dict[str, Any] = {"rehearsal": rehearse, "environment": environment(device)}
    for name, part in parts(rehearse=rehearse).items():
        print(name, file=sys.stderr, flush=True)
        try:
            report[name] = part()
        except Exception as error:
            report[name] = {FAILED: f"{type(error).__name__}: {error}"}
        write_json(out, report)
    return report


def failed(report: dict[str, Any]) -> list[str]:
    """The parts that could not be made, or whose check does not hold."""
    wrong = []
    for name, part in report.items():
        checks = part.values() if name == "parity" and FAILED not in part else [part]
        if part is False or any(isinstance(c, dict) and _is_wrong(c) for c in checks):
            wrong.append(name)
    return wrong


def _is_wrong(check: dict[str, Any]) -> bool:
    told = ("within", "replay_equals_eager", "passed")
    return FAILED in check or any(check.get(key) is False for key in told)


def table(report: dict[str, Any]) -> str:
    """The report as text."""
    lines: list[str] = []
    bandwidth = report["copy_bandwidth_gb_per_s"]
    known = isinstance(bandwidth, float)
    for name, part in report.items():
        if name == "parity" and FAILED not in part:
            off = [check for check, row in part.items() if not row["within"]]
            lines.append(f"parity with the float64 oracle: {f'off for {off}' if off else 'holds'}")
            continue
        if not name.startswith("step_times") or FAILED in part:
            lines.append(f"{name}: {part}")
            continue
        lines.append(f"\n{name}: {part['tensors']} tensors, {part['parameters']:,} parameters")
        for variant, row in part["variants"].items():
            reached = row.get("gb_per_s")
            share = f"{reached / bandwidth:5.0%} of copy" if reached and known else ""
            lines.append(f"  {variant:<24}{row['median_ms']:9.3f} ms  x{row['ratio']:.2f}  {share}")
    wrong = failed(report)
    return "\n".join([*lines, "", f"wrong: {', '.join(wrong)}" if wrong else "all checks hold"])


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
    report = run(options.out, rehearse=options.rehearse)
    print(table(report))
    print(f"\nwritten to {options.out}")
    return 1 if failed(report) else 0


if __name__ == "__main__":
    raise SystemExit(main())

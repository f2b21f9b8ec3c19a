"""Checks of ``benchmarks.gpu`` beside the step times: numbers, memory, waiting, graphs, tests."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mars_optim import MARSAdamW
from mars_optim.optim import backends, reference
from mars_optim.optim.hyperparameters import Settings

from .shapes import Shape

DTYPES = ("float32", "bfloat16", "float16")


class Clock:
    """Milliseconds between two points of a device's own time."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"

    def now(self) -> Any:
        """A point of time."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def between(self, start: Any, end: Any) -> float:
        """From one point to another, once both have passed."""
        return float(start.elapsed_time(end)) if self.cuda else 1e3 * (end - start)

    def wait(self) -> None:
        """Until the device has done all it was told."""
        if self.cuda:
            torch.cuda.synchronize()


def summary(times: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(times, n=4)
    return {"median_ms": middle, "quartiles_ms": [low, high], "rounds": len(times)}  # type: ignore[dict-item]


def make(device: str, shapes: list[Shape]) -> list[torch.nn.Parameter]:
    """Parameters with gradients whose norms exceed 1, the same for every variant."""
    generator = torch.Generator(device).manual_seed(0)
    params = []
    for shape in shapes:
        param = torch.nn.Parameter(torch.randn(shape, device=device, generator=generator))
        param.grad = torch.randn(shape, device=device, generator=generator)
        params.append(param)
    return params


def settings_for(**options: Any) -> Settings:
    """A group's settings, those of the package's tests."""
    given: dict[str, Any] = dict(rule="adamw", lr=0.01, betas=(0.95, 0.99), eps=1e-8, gamma=0.025)
    return Settings(
        **{**given, "weight_decay": 0.1, "clip": 1.0, "correction": "approx", **options}
    )


PARITY: dict[str, Settings] = {
    "adamw": settings_for(),
    "adamw bf16 history": settings_for(last_grad_dtype=torch.bfloat16),
    "adamw amsgrad maximize": settings_for(amsgrad=True, maximize=True),
    "adamw folded": settings_for(clip=None, correction="folded"),
    "lion": settings_for(rule="lion"),
}


def parity(device: str, dtype: torch.dtype, settings: Settings) -> dict[str, Any]:
    """Three steps, each beside the float64 oracle's from the same state.

    Returns:
        ``path`` that was chosen, and ``error``, the largest in units of what is allowed: one unit
        in the last place of a parameter and a thousandth of a step. Lion's sign may be either
        where its momentum is 0 but for rounding.
    """
    generator = torch.Generator(device).manual_seed(1)
    shapes: list[Shape] = [(1,), (3,), (127,), (4099,), (0,), (), (300, 700)]
    params = [param.detach().to(dtype) for param in make(device, shapes)]
    states: list[dict[str, Tensor]] = [{} for _ in params]
    for param, state in zip(params, states, strict=True):
        backends.init_state(param, state, backends.state_dtypes(param.dtype, settings))
    path, worst = "", 0.0
    for size in (0.01, 1.0, 30.0):
        grads = [
            torch.randn(p.shape, dtype=dtype, device=device, generator=generator) * size
            for p in params
        ]
        exact = [param.double() for param in params]
        exact_states = [
            {k: v.clone() if k == "step" else v.double() for k, v in state.items()}
            for state in states
        ]
        reference.update(exact, [grad.double() for grad in grads], exact_states, settings)
        bucket = backends.Bucket(params, grads, states, settings)
        backends.prepare(bucket)()
        path = backends.choose(bucket)
        for x, y, state in zip(params, exact, exact_states, strict=True):
            allowed = torch.finfo(dtype).eps * y.abs() + 1e-3 * settings.lr
            if settings.rule == "lion":
                nowhere = state["exp_avg"].abs() <= 8 * torch.finfo(dtype).eps * size
                allowed += 2.0 * settings.lr * nowhere
            worst = max([worst, *((x.double() - y).abs() / allowed).flatten().tolist()])
    return {"path": path, "error": worst, "within": worst <= 1.0}


def memory(
    device: str, shapes: list[Shape], factories: dict[str, Callable[..., Optimizer]]
) -> dict[str, Any]:
    """Bytes per parameter of the state, and of what a step needs beside it."""
    if device != "cuda":
        return {}
    rows = {}
    for name, factory in factories.items():
        params = make(device, shapes)
        numel = sum(param.numel() for param in params)
        before = torch.cuda.memory_allocated()
        optimizer = factory(params)
        for _ in range(3):  # MARS looks at itself in the third
            optimizer.step()
        torch.cuda.synchronize()
        steady = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        optimizer.step()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
        rows[name] = {"state": (steady - before) / numel, "transient": (peak - steady) / numel}
        del optimizer, params
    return rows


def never_waits(params: list[torch.nn.Parameter]) -> bool:
    """Whether steps with gradients at new addresses run without a host synchronisation."""
    optimizer = MARSAdamW(params)
    optimizer.step()
    for param in params:
        param.grad = torch.randn_like(param)
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return False
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return True


def graph_step(shapes: list[Shape], rounds: int) -> dict[str, Any]:
    """A captured step: whether replays equal eager steps bit for bit, and their time."""
    ends = []
    clock, times = Clock("cuda"), []
    for captured in (False, True):
        params = make("cuda", shapes)
        optimizer = MARSAdamW(params, capturable=True)
        optimizer.step()
        graph = torch.cuda.CUDAGraph()
        if captured:
            with torch.cuda.graph(graph):
                optimizer.step()
        for _ in range(rounds):
            start = clock.now()
            graph.replay() if captured else optimizer.step()
            end = clock.now()
            clock.wait()
            if captured:
                times.append(clock.between(start, end))
        ends.append([param.detach().clone() for param in params])
        del optimizer, params, graph
    equal = all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    return {"replay_equals_eager": equal, **summary(times)}


def gpu_files() -> list[Path]:
    """The test files with tests marked gpu; others import what a bare machine may lack."""
    tests = Path(__file__).parents[1] / "tests"
    return [p for p in sorted(tests.rglob("test_*.py")) if "pytest.mark.gpu" in p.read_text()]


def gpu_tests(seconds: float = 240.0) -> dict[str, Any]:
    """The tests marked gpu, in a process of their own.

    Args:
        seconds: after which the process is ended, so that it cannot take the other parts along.
    """
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "pytest", *map(str, gpu_files()), "-m", "gpu", "-q", "-rf"]
    command += ["-p", "no:cacheprovider"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        return {"passed": False, "summary": f"ended after {seconds:g} s", "output": said[-4000:]}
    last = (done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]])[-1]
    if done.returncode == 0:
        return {"passed": True, "summary": last}
    return {"passed": False, "summary": last, "output": (done.stdout + done.stderr)[-4000:]}

"""How fast a run is: tokens per second, the optimizer's share, model FLOPs utilisation."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch
from torch import nn

from ..tasks import GPT, Task

# dense bf16 TFLOP/s of the makers' data sheets; the longest name that fits counts
PEAK_TFLOPS = {
    "A10": 125.0,
    "A10G": 70.0,
    "A100": 312.0,
    "A30": 165.0,
    "B200": 2250.0,
    "GH200": 989.4,
    "H100": 989.4,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "H200": 989.4,
    "H20": 148.0,
    "L4": 121.0,
    "L40": 181.0,
    "L40S": 362.0,
    "MI250": 362.1,
    "MI300X": 1307.4,
    "RTX 3090": 71.0,
    "RTX 4090": 165.2,
    "RTX A6000": 154.8,
}


class Clock:
    """Times steps and the optimizer in them, and never waits for the device.

    Args:
        device: on all but the CPU the optimizer is timed by events, which are read once the loop
            has read the step's loss, so after the device has passed them.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begin = 0.0
        self._marks: list[float | torch.Event] = []

    def start(self) -> None:
        """At the beginning of a step."""
        self._begin, self._marks = time.perf_counter(), []

    @contextlib.contextmanager
    def optimizer(self) -> Iterator[None]:
        """Around the optimizer's step."""
        self._mark()
        yield
        self._mark()

    def stop(self) -> tuple[float, float]:
        """Seconds of the step, and of the optimizer in it; call after its loss has been read."""
        seconds = time.perf_counter() - self._begin
        first, last = self._marks
        if isinstance(first, torch.Event) and isinstance(last, torch.Event):
            return seconds, first.elapsed_time(last) / 1000.0
        assert isinstance(first, float)
        assert isinstance(last, float)
        return seconds, last - first

    def _mark(self) -> None:
        if self._device.type == "cpu":
            self._marks.append(time.perf_counter())
            return
        event = torch.Event(self._device, enable_timing=True)
        event.record()
        self._marks.append(event)


def flops_per_token(task: Task, model: nn.Module) -> float:
    """FLOPs of the model's forward and backward pass for one token; 0 where not known.

    The task's own ``flops_per_token`` if it has one. For a GPT 6 N + 12 layers width context: a
    multiplication and an addition for each weight, three times, and attention's two products of
    queries, keys and values (PaLM, appendix B). N leaves out the positions, which multiply nothing.
    """
    offered = getattr(task, "flops_per_token", None)
    if offered is not None:
        return float(offered)
    if not isinstance(model, GPT):
        return 0.0
    context, width = model.wpe.weight.shape
    weights = sum(p.numel() for p in model.parameters()) - context * width
    return float(6 * weights + 12 * len(model.blocks) * width * context)


def peak_flops(device: torch.device, given: float = 0.0) -> float:
    """FLOP/s of one device, dense bf16; 0 where not known.

    Args:
        device: whose name is looked up.
        given: TFLOP/s, which is taken instead.
    """
    if given:
        return given * 1e12
    return 0.0 if device.type != "cuda" else peak_of(torch.cuda.get_device_name(device))


def peak_of(name: str) -> float:
    """FLOP/s of a GPU by its name, dense bf16; 0 where not known."""
    words = f" {name} ".replace("-", " ")
    fitting = [known for known in PEAK_TFLOPS if f" {known} " in words]
    return 1e12 * PEAK_TFLOPS[max(fitting, key=len)] if fitting else 0.0

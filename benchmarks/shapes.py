"""The sets of tensors that are stepped: a real model's, and many small ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]


def gpt2(
    *, layers: int = 12, width: int = 768, context: int = 1024, vocabulary: int = 50304
) -> dict[str, Shape]:
    """GPT-2 with biases and a tied head; small: 148 tensors, 124,475,904 parameters."""
    shapes: dict[str, Shape] = {"wte": (vocabulary, width), "wpe": (context, width)}
    linear = {"qkv": (3, 1), "out": (1, 1), "up": (4, 1), "down": (1, 4)}
    for layer in range(layers):
        for name, (rows, cols) in linear.items():
            shapes[f"blocks.{layer}.{name}.weight"] = (rows * width, cols * width)
            shapes[f"blocks.{layer}.{name}.bias"] = (rows * width,)
        for name in ("norm1", "norm2"):
            shapes[f"blocks.{layer}.{name}.weight"] = (width,)
            shapes[f"blocks.{layer}.{name}.bias"] = (width,)
    return {**shapes, "norm.weight": (width,), "norm.bias": (width,)}


def small(*, tensors: int = 300) -> dict[str, Shape]:
    """As many small tensors, half (64, 64) and half (64,): what is measured is the overhead."""
    return {f"blocks.{i}": (64, 64) if i % 2 else (64,) for i in range(tensors)}


SETS: dict[str, Callable[[], dict[str, Shape]]] = {
    "gpt2": gpt2,
    "small": small,
    "layer": lambda: gpt2(layers=1, context=8, vocabulary=8),
    "tiny": lambda: gpt2(layers=1, width=16, context=8, vocabulary=32),  # to try a benchmark
}
TITLES = {
    "gpt2": "GPT-2 small's tensors",
    "small": "300 small tensors",
    "layer": "one layer of GPT-2 small",
    "tiny": "a few tiny tensors (a trial of the benchmark, not a measurement)",
}


def hidden(name: str, shape: Shape) -> bool:
    """Whether Newton-Schulz is for this tensor: a block's matrix."""
    return len(shape) == 2 and name.startswith("blocks.")


def count(shapes: dict[str, Shape]) -> int:
    """Elements of all of them."""
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def parameters(shapes: dict[str, Shape], *, scale: float = 0.02) -> dict[str, nn.Parameter]:
    """Random float32 parameters of these shapes, the same at each call."""
    made = _random(shapes, seed=0, scale=scale)
    return {name: nn.Parameter(tensor) for name, tensor in made.items()}


def gradients(shapes: dict[str, Shape], *, norm: float = 1.0) -> dict[str, Tensor]:
    """Random float32 gradients, the same at each call.

    Args:
        shapes: by name.
        norm: of all of them together; 1, the default, is what the usual gradient clipping leaves,
            and then no single tensor is above MARS's own clip of 1.
    """
    return _random(shapes, seed=1, scale=norm / count(shapes) ** 0.5)


def _random(shapes: dict[str, Shape], *, seed: int, scale: float) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.empty(shape).normal_(0.0, scale, generator=generator)
        for name, shape in shapes.items()
    }

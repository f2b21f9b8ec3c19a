"""Coordinate check: do a model's activations keep their size as it is made wider?

Tensor Programs V (arXiv 2203.03466), appendix D.1: the same few steps at several widths, and of
every layer's output x the size of x_0 at the start and of its change x_t - x_0. Where the rules of
transfer hold, both go with width^0 (x_0 may fall, as logits do).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import UserError
from ..plan import Arm
from ..tasks import Task
from ..training.optimizer import build_optimizer

STEPS = 4
SEEDS = (0, 1, 2)
SPAN = 4
STEEPEST = 0.25
"""Power of the width beyond which a layer's size is not flat. Of the built-in GPT's hidden layers
at widths 32 to 256 the largest is 0.06 with the rules, and 0.41 to 0.95 without them
(docs/transfer.md)."""

Sizes = dict[str, tuple[float, float]]  # of a layer: size of x_0, and of x_t - x_0


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """How a layer's output goes with the width.

    Args:
        name: of the module; "" is the model.
        start: power of the width that the size of x_0 goes with; nan where x_0 is 0.
        change: likewise of x_t - x_0; nan where nothing changes.
    """

    name: str
    start: float
    change: float

    @property
    def why_not(self) -> str:
        """Reason for the failure, in a few words; "" without one.

        Logits start like width^-0.5, and change like that for as long as what they read changes
        more than their own weights do: such layers may.
        """
        lowest = -STEEPEST if not self.start < -STEEPEST else -0.5 - STEEPEST
        if self.start > STEEPEST:
            return f"starts like width^{self.start:.2f}"
        if self.change > STEEPEST or self.change < lowest:
            return f"changes like width^{self.change:.2f}"
        return ""


def coordinate_check(
    tasks: Mapping[int, Task],
    arm: Arm,
    *,
    lr: float,
    steps: int = STEPS,
    seeds: Sequence[int] = SEEDS,
) -> list[Layer]:
    """Train each width a few steps at a constant rate and fit the sizes of every layer.

    Args:
        tasks: the same task by width, over a factor of four at least. What a model's rates are
            multiplied by is its ``transfer``, :class:`~mars_optim.optim.transfer.Ratios`.
        arm: whose optimizer makes the steps.
        lr: of the base.
        steps: that are made (default: 4).
        seeds: sizes are geometric means over them (default: 0, 1, 2).

    Raises:
        UserError: for widths too close to each other, or layers with other names at some width.
    """
    check_widths(list(tasks))
    measured = {w: [_sizes(t, arm, lr, steps, s) for s in seeds] for w, t in sorted(tasks.items())}
    first, *others = (set(runs[0]) for runs in measured.values())
    if odd := set().union(*(first ^ names for names in others)):
        raise UserError(
            f"layer {min(odd)!r} is missing at some of the widths {list(measured)}: the model "
            "must have the same layers at every width"
        )
    widths = np.log2(list(measured))
    layers = []
    for name in next(iter(measured.values()))[0]:
        sizes = np.array([[run[name] for run in runs] for runs in measured.values()])
        with np.errstate(divide="ignore"):
            logs = np.log2(sizes).mean(axis=1)  # (widths, 2)
        slopes = [_slope(widths, column) for column in logs.T]
        layers.append(Layer(name=name, start=slopes[0], change=slopes[1]))
    return layers


def check_widths(widths: Sequence[int]) -> None:
    """Refuse widths between which what is fitted would be noise.

    Raises:
        UserError: naming them.
    """
    if min(widths, default=0) < 1 or max(widths) < SPAN * min(widths):
        raise UserError(
            f"widths {', '.join(map(str, widths))}: they must be above 0, and the widest at "
            f"least {SPAN} times the narrowest, or the fit shows noise only; such as 64, 128 "
            "and 256"
        )


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.polyfit(x, y, 1)[0]) if np.isfinite(y).all() else float("nan")


def _sizes(task: Task, arm: Arm, lr: float, steps: int, seed: int) -> Sizes:
    """Root mean squares of x_0 and x_t - x_0 on the batch after the last."""
    model = task.build_model(seed)
    optimizer = build_optimizer(model, arm, lr=lr)
    held_out = task.batch(seed, steps, 0)
    before = outputs(model, task, held_out)
    for step in range(steps):
        optimizer.zero_grad()
        task.loss(model, task.batch(seed, step, 0)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = outputs(model, task, held_out)
    return {name: (_rms(x), _rms(after[name] - x)) for name, x in before.items() if name in after}


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


@torch.no_grad()
def outputs(model: nn.Module, task: Task, batch: Any) -> dict[str, Tensor]:
    """Outputs of every module, float32, by its name; the last ones where it is called again."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                found[name] = output.detach().float().clone()

        return hook

    handles = [m.register_forward_hook(keep(name)) for name, m in model.named_modules()]
    try:
        task.loss(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def broken(layers: Sequence[Layer]) -> list[Layer]:
    """The layers that do not keep their size, in the model's order."""
    return [layer for layer in layers if layer.why_not]

"""A cautious step of any optimizer: what it did is undone where it went against the gradient."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from ..distributed.sharded import Shards, as_real, layout, like, local
from ..rules import cautious

# torch's own whose groups do not say that their decay is apart from the step
_APART = ("Muon", "Adafactor")


@dataclass(frozen=True, slots=True)
class Before:
    """A parameter before a step.

    Args:
        param: that is stepped.
        kept: where decay alone would take it.
        grad: g_t, as the user left it.
        maximize: whether the optimizer ascends.
    """

    param: Tensor
    kept: Tensor
    grad: Tensor
    maximize: bool


def check_cautious(optimizer: Optimizer) -> None:
    """Raise ValueError for an optimizer whose parameters are not all there is of a step."""
    if hasattr(optimizer, "train") and hasattr(optimizer, "eval"):
        raise ValueError(
            f"{type(optimizer).__name__} mixes its parameters from points of its own (it has "
            "train() and eval()), so its steps cannot be masked: leave out cautious=True"
        )


def before_step(optimizer: Optimizer) -> list[Before]:
    """Copies of all parameters with a gradient, less the decay that is known to stand apart."""
    found = []
    for group in optimizer.param_groups:
        apart = group.get("decoupled_weight_decay") or (
            type(optimizer).__module__.startswith("torch.optim")
            and type(optimizer).__name__ in _APART
        )
        shrunk = 1.0 - group["lr"] * group["weight_decay"] if apart else 1.0
        for param in group["params"]:
            if param.grad is not None:
                x = as_real(local(param.detach()))
                kept = x.clone() if isinstance(shrunk, float) and shrunk == 1.0 else x * shrunk
                maximize = bool(group.get("maximize", False))
                found.append(Before(param, kept, param.grad, maximize))
    return found


def mask_(steps: list[Before]) -> None:
    """x <- kept + d mask(d g < 0) / share, d what the step added to ``kept``."""
    alike: dict[Any, list[Before]] = defaultdict(list)
    for step in steps:
        key = step.param.device, step.param.dtype, layout(step.param), step.maximize
        alike[key].append(step)
    for bucket in alike.values():
        params = [as_real(local(s.param.detach())) for s in bucket]
        kept = [s.kept for s in bucket]
        grads = [as_real(local(like(s.grad, s.param))) for s in bucket]
        directions = list(torch._foreach_sub(kept, params))
        masked = cautious(
            directions,
            [g.to(d.dtype) for g, d in zip(grads, directions, strict=True)],
            maximize=bucket[0].maximize,
            shards=Shards.of([s.param for s in bucket]),
        )
        torch._foreach_copy_(params, list(torch._foreach_sub(kept, masked)))

"""gamma_t: a number, tied to the learning rate, or chosen by what the steps show."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...gamma_numbers import sampled
from ..distributed.tensor_parallel import several_stages
from ..values import at_least_zero, learning_rate
from . import kept
from .criteria import CRITERIA
from .kept import NOW, PEAK, Group, Plans, is_chosen


def prepare(groups: Sequence[Group], plans: Plans) -> None:
    """Let each group that has a schedule have what the step that is due needs.

    Raises:
        RuntimeError: in a compiled step, for what cannot be in a graph.
    """
    for i, group in enumerate(groups):
        if group["gamma_schedule"] == "constant":
            continue
        if kept.follows_lr(group):
            follow_lr(group)
        elif is_chosen(group):
            kept.ready(group, plans, i)


def check_stages(groups: Sequence[Group]) -> None:
    """Raise ValueError where each pipeline stage would choose another gamma."""
    chosen = next(filter(is_chosen, groups), None)
    if chosen is not None and several_stages():
        raise ValueError(
            f"gamma_schedule={chosen['gamma_schedule']!r} would choose a different gamma for "
            "each pipeline stage or expert, and Megatron's checkpoints keep one: use 'lr', "
            "'sqrt_lr' or a number"
        )


def follow_lr(group: Group) -> None:
    """gamma_t = gamma lr_t / lr_peak, or its root; the peak is the highest lr of the run so far.

    So gamma keeps its value in a warm-up, and falls as the steps get shorter: lag is proportional
    to the learning rate and noise is not.
    """
    if not torch.compiler.is_compiling():
        kept.follow(group)
    lr, now, peak = learning_rate("lr", group["lr"]), group[NOW], group[PEAK]
    lr = torch.as_tensor(lr, dtype=torch.float64, device=peak.device).reshape(1).clamp_min(0.0)
    peak.copy_(torch.maximum(peak, lr))
    part = torch.where(peak > 0.0, lr / peak, 1.0)
    part = part.sqrt() if group["gamma_schedule"] == "sqrt_lr" else part
    part = part * at_least_zero("gamma", group["gamma"])
    if part.device.type == "cpu" and not torch.compiler.is_compiling():
        now.fill_(float(part))  # a copy to a device would wait
    else:
        now.copy_(part)


def sampled_bytes(tensor: Tensor, schedule: str) -> int:
    """Bytes that the criterion keeps for ``tensor``."""
    numbers = sampled(tensor.shape) if not tensor.is_complex() else sampled((*tensor.shape, 2))
    return len(CRITERIA[schedule].BEGIN) * numbers * torch.float64.itemsize

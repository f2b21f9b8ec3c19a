"""The buffers that a parameter's state has for a step, and making them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..distributed.sharded import local
from ..hyperparameters import Settings


def state_dtypes(dtype: torch.dtype, settings: Settings) -> dict[str, torch.dtype]:
    """The buffers that the group's rule needs for a parameter of this dtype, and the dtype of each.

    ``exp_avg``; for adamw ``exp_avg_sq`` and with amsgrad ``max_exp_avg_sq``; where a gradient
    difference is taken ``last_grad``. In the parameter's dtype unless the group asks otherwise.
    """
    names = ["exp_avg"]
    if settings.rule == "adamw":
        names.append("exp_avg_sq")
        if settings.amsgrad:
            names.append("max_exp_avg_sq")
    asked: dict[str, torch.dtype | None] = dict.fromkeys(names, settings.state_dtype)
    if settings.takes_difference:
        asked["last_grad"] = settings.last_grad_dtype
    if dtype.is_complex:
        asked = dict.fromkeys(asked, None)
    return {name: own or dtype for name, own in asked.items()}


def init_state(
    param: Tensor,
    state: dict[str, Any],
    dtypes: dict[str, torch.dtype],
    *,
    step_beside: bool = False,
) -> None:
    """Add what ``state`` lacks, all zero: ``step`` (float32, 0-d, as torch's AdamW) and buffers.

    Args:
        param: the state's.
        state: changed.
        dtypes: of the buffers, from :func:`state_dtypes`.
        step_beside: whether the counter lives on the parameter's device, rather than on the CPU.
    """
    if "step" not in state:
        device = local(param).device if step_beside else "cpu"
        state["step"] = torch.tensor(0.0, dtype=torch.float32, device=device)
    for name, dtype in dtypes.items():
        if name not in state:
            state[name] = torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format)

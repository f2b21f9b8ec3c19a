"""torch's own fused AdamW kernel fed with c_t: one pass for both moments and the step."""

from __future__ import annotations

import torch
from torch import Tensor

from ..correction import GlobalNorm
from ..distributed.sharded import Shards
from ..hyperparameters import Settings
from ..telemetry import Observe, tell
from ..types import State
from .foreach import GradientHistory, advance_
from .layout import columns_of, unlike


def why_not(
    params: list[Tensor], grads: list[Tensor], states: list[State], settings: Settings
) -> str | None:
    """The reason why torch's kernel cannot take this step, or None if it can."""
    if torch.compiler.is_compiling():  # inductor's graphs cannot hold torch's kernel
        return "torch.compile makes kernels of its own"
    if settings.rule != "adamw":
        return f"torch has a fused kernel for rule='adamw', not for rule={settings.rule!r}"
    if settings.cautious:
        return "cautious=True has no fused kernel"
    if settings.folds:
        return "correction='folded' has no fused kernel yet"
    if params[0].device.type not in ("cpu", "cuda"):
        return f"device {params[0].device.type!r} has no fused kernel here"
    columns = columns_of(params, grads, states)
    if columns is None:
        return "some parameters have a state that others lack"
    if reason := unlike(columns, in_order=True):
        return reason
    if {(s["step"].dtype, s["step"].numel()) for s in states} != {(torch.float32, 1)}:
        return "a step counter is not one float32 number"
    return None


def place_steps(params: list[Tensor], states: list[State], own_states: list[State]) -> None:
    """Move the step counters to where torch's kernel reads them: beside the parameters.

    Args:
        params: as the kernel takes them.
        states: the optimizer's.
        own_states: the same as the kernel takes them.
    """
    for x, state, own in zip(params, states, own_states, strict=True):
        if state["step"].device != x.device:
            state["step"] = own["step"] = state["step"].to(x.device)


def update(
    params: list[Tensor],
    grads: list[Tensor],
    states: list[State],
    settings: Settings,
    shards: Shards | None = None,
    *,
    observe: Observe | None = None,
    global_norm: GlobalNorm | None = None,
) -> None:
    """One MARS-AdamW step; arguments as in ``foreach.update``."""
    if observe is not None:
        tell(observe, grads, states, settings, shards, global_norm)
    with_history = GradientHistory(grads, states, settings, shards, global_norm)
    cs = with_history.estimate()
    advance_(states)  # torch's kernel reads t
    try:
        # Not through torch.optim's wrapper: it would read the gradients from the parameters.
        torch._fused_adamw_(
            params,
            cs,
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [s["max_exp_avg_sq"] for s in states] if settings.amsgrad else [],
            [s["step"] for s in states],
            lr=settings.lr,
            beta1=settings.betas[0],
            beta2=settings.betas[1],
            weight_decay=settings.weight_decay,
            eps=settings.eps,
            amsgrad=settings.amsgrad,
            maximize=False,
            grad_scale=None,
            found_inf=None,
        )
    except Exception:
        advance_(states, -1.0)
        raise
    with_history.remember()

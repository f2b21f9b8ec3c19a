"""torch's own fused AdamW kernel fed with c_t: one pass for both moments and the step."""

from __future__ import annotations

import torch

from .base import Bucket
from .foreach import advance_, estimate, remember
from .layout import columns_of, unlike

OWN: frozenset[str] = frozenset()


def why_not(bucket: Bucket) -> str | None:
    """The reason why torch's kernel cannot take this step, or None if it can."""
    settings = bucket.settings
    if torch.compiler.is_compiling():  # inductor's graphs cannot hold torch's kernel
        return "torch.compile makes kernels of its own"
    if settings.rule != "adamw":
        return f"torch has a fused kernel for rule='adamw', not for rule={settings.rule!r}"
    if settings.cautious:
        return "cautious=True has no fused kernel"
    if settings.folds:
        return "correction='folded' has no fused kernel yet"
    device = bucket.params[0].device
    if device.type not in ("cpu", "cuda"):
        return f"device {device.type!r} has no fused kernel here"
    columns = columns_of(bucket)
    if columns is None:
        return "some parameters have a state that others lack"
    if reason := unlike(columns, in_order=True):
        return reason
    if {(s["step"].dtype, s["step"].numel()) for s in bucket.states} != {(torch.float32, 1)}:
        return "a step counter is not one float32 number"
    return None


def step(bucket: Bucket) -> None:
    """One MARS-AdamW step, with the step counters beside the parameters."""
    states, settings = bucket.states, bucket.settings
    cs = estimate(bucket)
    advance_(states)  # torch's kernel reads t
    try:
        # Not through torch.optim's wrapper: it would read the gradients from the parameters.
        torch._fused_adamw_(
            bucket.params,
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
    remember(bucket)

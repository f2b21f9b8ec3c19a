"""Multi-tensor arithmetic: a handful of calls for all tensors of a group."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import correction, rules
from ..distributed.sharded import Shards
from ..hyperparameters import Settings
from ..telemetry import Observe, tell
from ..types import State


def update(
    params: list[Tensor],
    grads: list[Tensor],
    states: list[State],
    settings: Settings,
    shards: Shards | None = None,
    *,
    observe: Observe | None = None,
    global_norm: correction.GlobalNorm | None = None,
) -> None:
    """One MARS step; arguments as in ``reference.update``.

    Args:
        shards: of which whole tensors all of these are shards, if they are.
        observe: is told the sums of every tensor, see ``telemetry``, and its clip's scale.
        global_norm: the norm for ``clip_over="global"`` (default: None, over these parameters).
    """
    if observe is not None:
        tell(observe, grads, states, settings, shards, global_norm)
    with_history = GradientHistory(grads, states, settings, shards, global_norm)
    cs = with_history.estimate()
    ms = rules.momentum_([s["exp_avg"] for s in states], cs, settings=settings)
    match settings.rule:
        case "adamw":
            if settings.cautious:  # m_t has the signs of the direction
                ms = rules.cautious(ms, grads, settings=settings, shards=shards)
            rules.adamw_(
                params,
                ms,
                cs,
                [s["exp_avg_sq"] for s in states],
                [s["max_exp_avg_sq"] for s in states] if settings.amsgrad else [],
                counted(states, settings),
                settings=settings,
            )
        case "lion":
            rules.lion_(params, ms, grads, settings=settings, shards=shards)
        case "shampoo":
            rules.shampoo_(params, ms, grads, settings=settings, shards=shards)
        case "muon":
            rules.muon_(params, ms, grads, settings=settings, shards=shards)
    with_history.remember()
    advance_(states)  # last, so that it counts steps that were taken


def counted(states: list[State], settings: Settings) -> list[float] | list[Tensor]:
    """t of the step that is due, for every parameter; 0-d tensors where a graph is to hold it."""
    if settings.capturable or torch.compiler.is_compiling():
        return list(torch._foreach_add([s["step"] for s in states], 1.0))
    return [float(s["step"]) + 1.0 for s in states]


def advance_(states: list[State], by: float = 1.0) -> None:
    """t <- t + 1 for every parameter."""
    torch._foreach_add_([s["step"] for s in states], by)


class GradientHistory:
    """c_t in the memory of g_{t-1}, and g_t put there once c_t is used up."""

    def __init__(
        self,
        grads: list[Tensor],
        states: list[State],
        settings: Settings,
        shards: Shards | None = None,
        global_norm: correction.GlobalNorm | None = None,
    ) -> None:
        self.grads = grads
        self.settings = settings
        self.shards = shards
        self.global_norm = global_norm
        self.kept = [
            (state["last_grad"], g)
            for state, g in zip(states, self.grads, strict=True)
            if "last_grad" in state
        ]

    def estimate(self) -> list[Tensor]:
        """The clipped c_t of every parameter; the user's gradients are never written."""
        settings, cs = self.settings, self.grads
        # of all tensors, so while g_{t-1} is still there
        norms = self.global_norm.of(cs) if self.global_norm and settings.clips_together else None
        if settings.takes_difference:
            last_grads = [last_grad for last_grad, _ in self.kept]
            cs = correction.corrected_(last_grads, cs, gain=settings.gain)
            if settings.maximize:
                torch._foreach_neg_(cs)
        elif settings.maximize:
            cs = list(torch._foreach_neg(cs))
        if settings.clip is not None:
            if norms is None:
                norms = correction.clip_norms(correction.norms_of(cs), settings, self.shards)
            cs = correction.clipped(cs, norms, settings.clip, in_place=settings.takes_difference)
        return cs

    def remember(self) -> None:
        """g_{t-1} <- g_t, also while gamma passes through 0, so that it is never stale."""
        if self.kept and not self.settings.exact:
            correction.remember_([last for last, _ in self.kept], [g for _, g in self.kept])

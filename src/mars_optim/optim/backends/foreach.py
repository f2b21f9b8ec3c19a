"""Multi-tensor arithmetic: a handful of calls for all tensors of a bucket."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import correction, rules
from ..hyperparameters import Settings
from ..telemetry import CC
from ..types import State
from .base import Bucket
from .cpu import native

OWN: frozenset[str] = frozenset()


def why_not(bucket: Bucket) -> str | None:
    """None: this takes every step, but for what :func:`.layout.lay_out` refuses on any path."""
    return None


def step(bucket: Bucket) -> None:
    """One MARS step, in the order of ``reference.update``."""
    params, grads, states = bucket.params, bucket.grads, bucket.states
    settings, shards = bucket.settings, bucket.shards
    cs = estimate(bucket)
    ms = rules.momentum_([s["exp_avg"] for s in states], cs, settings=settings)
    match settings.rule:
        case "adamw":
            if settings.cautious:  # m_t has the signs of the direction
                ms = rules.cautious(ms, grads, maximize=settings.maximize, shards=shards)
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
        case "shampoo" | "muon":
            rules.orthogonal_(params, ms, grads, settings=settings, shards=shards)
    remember(bucket)
    advance_(states)  # last, so that it counts steps that were taken


def estimate(bucket: Bucket) -> list[Tensor]:
    """The clipped c_t of every parameter, in the memory of g_{t-1}; no gradient is written.

    The observer is told on the way: where a kernel of ours can walk through the tensors, the sums
    that it is told and the norms for the clip are of one pass.
    """
    cs, settings = bucket.grads, bucket.settings
    norms, scales = bucket.shared_norm(), None  # of all tensors, so while g_{t-1} is still there
    if settings.plain and bucket.tell_norms():
        return list(torch._foreach_neg(cs)) if settings.maximize else cs
    found = native.sums(bucket)
    told = bucket.sums() if found is None and bucket.observer is not None else found
    if settings.takes_difference:
        cs = correction.corrected_([s["last_grad"] for s in bucket.states], cs, gain=settings.gain)
        if settings.maximize:
            torch._foreach_neg_(cs)
    elif settings.maximize:
        cs = list(torch._foreach_neg(cs))
    if settings.clip is not None:
        if norms is None:
            norms = correction.clip_norms(norms_of(cs, found), settings, bucket.shards)
        scales = correction.scales_of(norms, settings.clip)
        cs = correction.clipped(cs, scales, in_place=settings.takes_difference)
    if told is not None:
        bucket.report(told, scales)
    return cs


def norms_of(cs: list[Tensor], sums: Tensor | None) -> Tensor:
    """||c_t|| of each tensor, (tensors,), from the sums of a kernel, (tensors, SUMS), if any.

    Of c's dtype either way: the shards of one tensor may be found by different ways.
    """
    return correction.norms_of(cs) if sums is None else sums[:, CC].sqrt().to(cs[0].dtype)


def remember(bucket: Bucket) -> None:
    """g_{t-1} <- g_t, once c_t is used up.

    Also while gamma passes through 0, so that it is never stale. The exact form's g_{t-1} comes
    from a pass of its own.
    """
    rows = zip(bucket.states, bucket.grads, strict=True)
    kept = [(state["last_grad"], g) for state, g in rows if "last_grad" in state]
    if kept and not bucket.settings.exact:
        correction.remember_([last for last, _ in kept], [g for _, g in kept])


def counted(states: list[State], settings: Settings) -> list[float] | list[Tensor]:
    """t of the step that is due, for every parameter; 0-d tensors where a graph is to hold it."""
    if settings.capturable or torch.compiler.is_compiling():
        return list(torch._foreach_add([s["step"] for s in states], 1.0))
    return [float(s["step"]) + 1.0 for s in states]


def advance_(states: list[State], by: float = 1.0) -> None:
    """t <- t + 1 for every parameter."""
    torch._foreach_add_([s["step"] for s in states], by)

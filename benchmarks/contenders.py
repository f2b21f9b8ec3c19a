"""Who is measured: one entry per optimizer, ours first, then the installed peers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

import mars_optim

from .shapes import hidden

Params = dict[str, nn.Parameter]
Kind = str  # "baseline" | "ours" | "peer"
COMMON: dict[str, Any] = dict(lr=1e-4, weight_decay=0.1)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """An optimizer to be measured.

    Attributes:
        name: in the table.
        kind: "baseline", "ours" or "peer".
        build: from parameters by name to what has ``step()``.
        bytes: that its method must read and write per float32 parameter and step, whoever
            implements it; None where arithmetic and not memory is the limit.
        slow: whether Newton-Schulz makes a step take many seconds.
        before: called before each step, outside the measured time.
    """

    name: str
    kind: Kind
    build: Callable[[Params], Any]
    bytes: float | None
    slow: bool = False
    before: Callable[[Any], None] | None = None


def baseline() -> Contender:
    """torch's fused AdamW: gradient, both moments and parameter read, all but the first written."""
    return Contender(
        name="torch AdamW, fused",
        kind="baseline",
        build=lambda params: torch.optim.AdamW(params.values(), fused=True, **COMMON),
        bytes=28,
    )


def ours() -> list[Contender]:
    """The optimizers of this package.

    Bytes per parameter: a norm pass reads gradient and stored gradient (8); the update reads
    gradient, stored gradient, two moments, parameter (20) and writes all but the first (16).
    """
    return [
        _ours("MARSAdamW", 44, mars_optim.MARSAdamW),
        _ours("MARSAdamW, with telemetry", 44, measured_marsadamw),
        _ours("MARSAdamW, no clip", 36, mars_optim.MARSAdamW, clip=None),
        _ours(
            "MARSAdamW, stored gradient in bfloat16",
            38,
            mars_optim.MARSAdamW,
            last_grad_dtype=torch.bfloat16,
        ),
        _ours("MARSAdamW, folded", 28, mars_optim.MARSAdamW, correction="folded"),
        _ours(
            "MARSAdamW, exact (its step alone)",
            44,  # the stored gradient is not written, the last parameters are
            mars_optim.MARSAdamW,
            before=previous_gradient,
            correction="exact",
        ),
        _ours("MARSAdamW, gamma 0 (AdamW)", 28, mars_optim.MARSAdamW, gamma=0.0, clip=None),
        _ours("MARSLion", 36, mars_optim.MARSLion),
        _ours("MARSLion, folded", 20, mars_optim.MARSLion, correction="folded"),
        _matrices("MARSM, AdamW for the rest", "muon"),
        _matrices("MARSShampoo, AdamW for the rest", "shampoo"),
    ]


def _ours(
    name: str,
    nbytes: float,
    optimizer: Callable[..., Any],
    *,
    before: Callable[[Any], None] | None = None,
    **options: Any,
) -> Contender:
    def build(params: Params) -> Optimizer:
        made: Optimizer = optimizer(params.values(), **COMMON, **options)
        return made

    return Contender(name=name, kind="ours", build=build, bytes=nbytes, before=before)


def measured_marsadamw(params: Iterable[nn.Parameter], **options: Any) -> Optimizer:
    """MARS-AdamW whose steps add up noise, signal, correction and clip."""
    optimizer = mars_optim.MARSAdamW(params, **options)
    optimizer.measure()
    return optimizer


def _matrices(name: str, rule: str) -> Contender:
    def build(params: Params) -> Optimizer:
        matrices = [p for n, p in params.items() if hidden(n, tuple(p.shape))]
        rest = [p for n, p in params.items() if not hidden(n, tuple(p.shape))]
        plain = dict(params=rest, rule="adamw", gamma=0.0, clip=None, optimize_1d=True)
        groups: list[dict[str, Any]] = [dict(params=matrices, rule=rule), plain]
        return mars_optim.MARS([group for group in groups if group["params"]], **COMMON)

    return Contender(name=name, kind="ours", build=build, bytes=None, slow=True)


def previous_gradient(optimizer: Any) -> None:
    """The gradient that the exact form's first pass leaves: here the same one again."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    given = [p.grad for p in params]
    with optimizer.previous_point():
        for param, grad in zip(params, given, strict=True):
            param.grad = grad


def state_bytes(optimizer: Any, params: Params) -> int:
    """Bytes of the live state's tensors; step counters and what shares memory are left out."""
    seen = {p.data_ptr() for p in params.values()}
    seen |= {p.grad.data_ptr() for p in params.values() if p.grad is not None}
    total = 0
    for tensor in _tensors(optimizer):
        for part in _made_of(tensor):
            if part.numel() > 1 and part.data_ptr() not in seen:
                seen.add(part.data_ptr())
                total += part.nbytes
    return total


def _made_of(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The plain tensors of one that is put together from others, as torchao's 8-bit ones."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [getattr(tensor, name) for name in names]


def _tensors(optimizer: Any) -> Iterator[torch.Tensor]:
    for part in getattr(optimizer, "parts", (optimizer,)):
        with contextlib.suppress(AttributeError):
            for state in part.state.values():
                yield from (v for v in state.values() if isinstance(v, torch.Tensor))

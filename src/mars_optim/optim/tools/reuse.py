"""Parameters that reentrant checkpointing uses more than once in a pass.

``torch.utils.checkpoint(..., use_reentrant=True)`` runs a backward of its own for each segment. A
parameter that is used in two of them, or in one and outside, gets its gradient in pieces. No piece
says that others are to come; the calls of modules before backward do.
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Container
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.checkpoint import CheckpointFunction

_SEGMENT = CheckpointFunction.forward.__code__


class Reuse:
    """Watches the calls of modules, until :meth:`remove` or the end of its life."""

    def __init__(self, params: Container[Tensor]) -> None:
        self._params = params
        self._uses: Counter[Tensor] = Counter()  # in this forward pass
        self._inside: set[Tensor] = set()  # of these, in a segment
        self._backward = False  # whether gradients have arrived since
        self.in_pieces: set[Tensor] = set()  # since the last step
        this = weakref.ref(self)

        def called(module: nn.Module, args: Any) -> None:
            if not torch.compiler.is_compiling() and (watch := this()) is not None:
                watch._called(module)

        hook = register_module_forward_pre_hook(called)
        self.remove = weakref.finalize(self, hook.remove)

    def arrived(self) -> None:
        """A gradient is there, so the next call begins another pass."""
        self._backward = True

    def next_step(self) -> None:
        """Begin anew."""
        self.in_pieces.clear()

    def _called(self, module: nn.Module) -> None:
        params = [p for p in module._parameters.values() if p is not None and p in self._params]
        if not params or torch._C._current_graph_task_id() != -1:  # segments run again in backward
            return
        inside = not torch.is_grad_enabled() and _in_a_segment()
        if not inside and not torch.is_grad_enabled():
            return
        if self._backward:
            self._uses.clear()
            self._inside.clear()
            self._backward = False
        self._uses.update(params)
        if inside:
            self._inside.update(params)
        self.in_pieces |= {p for p in params if p in self._inside and self._uses[p] > 1}


def _in_a_segment() -> bool:
    """Whether a segment is being called that will have a backward; in evaluation it has none."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is _SEGMENT:
            args = frame.f_locals["args"]
            return any(isinstance(arg, Tensor) and arg.requires_grad for arg in args)
        frame = frame.f_back
    return False

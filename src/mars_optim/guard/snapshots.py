"""States to go back to: of what they consist, and copies of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from ..optim.distributed.sharded import is_sharded

Snapshot = dict[str, Any]


class Stateful(Protocol):
    """Anything with a state: a scheduler, a GradScaler, a data loader."""

    def state_dict(self) -> Any:
        """Its state."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:
        """Put it back."""
        ...


def copied(value: Any) -> Any:
    """A copy in which no tensor shares memory with ``value``, in main memory."""
    if isinstance(value, Tensor):
        if is_sharded(value):
            return value.detach().clone()
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: copied(entry) for key, entry in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_make"):  # a namedtuple
        return value._make(map(copied, value))
    if isinstance(value, list | tuple):
        return type(value)(copied(entry) for entry in value)
    return value


def rng_state() -> dict[str, Any]:
    """State of torch's generators, on the CPU and on this process's accelerator."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put :func:`rng_state` back."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])

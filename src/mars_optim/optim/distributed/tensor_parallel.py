"""Megatron's tensor parallelism: plain tensors that are shards, as only their attributes tell.

Its layers mark a parameter by ``tensor_model_parallel`` and ``partition_dim``, with one process
too; which processes have the other shards is known to ``megatron.core.parallel_state``. Nothing is
imported here: where Megatron is not loaded there is nothing to find.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Line:
    """The processes of one group, asked as a DeviceMesh of one dimension is."""

    group: Any
    ndim: ClassVar[int] = 1

    def size(self, d: int = 0) -> int:
        """How many there are."""
        return dist.get_world_size(self.group)

    def get_group(self, d: int = 0) -> Any:
        """The group itself."""
        return self.group

    def get_local_rank(self, d: int = 0) -> int:
        """Where this process stands among them."""
        return dist.get_rank(self.group)


def line_of(param: Tensor) -> Line | None:
    """The processes that have the shards of this plain tensor; None for a whole one.

    Raises:
        ValueError: for a shard of which it is not known who has the others.
    """
    if not getattr(param, "tensor_model_parallel", False):
        return None
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return None
    if not 0 <= partition_dim(param) < param.ndim:
        return None  # a flat piece that a distributed optimizer cut of it
    line = Line(_group(param))
    return line if line.size() > 1 else None


def partition_dim(param: Tensor) -> int:
    """The dimension that is cut."""
    return int(getattr(param, "partition_dim", -1))


def whole_shape(param: Tensor, line: Line) -> torch.Size:
    """Shape of the tensor of which ``param`` is one of equal shards."""
    shape = list(param.shape)
    shape[partition_dim(param)] *= line.size()
    return torch.Size(shape)


def several_stages() -> bool:
    """Whether Megatron gives its processes other layers or experts than this one has."""
    state = _parallel_state()
    return state is not None and (
        state.get_pipeline_model_parallel_world_size() > 1
        or state.get_expert_model_parallel_world_size() > 1
    )


def _group(param: Tensor) -> Any:
    state = _parallel_state()
    if state is None:
        raise ValueError(
            f"a parameter of shape {tuple(param.shape)} has tensor_model_parallel=True, but "
            "the processes with its other shards are not known: call "
            "megatron.core.parallel_state.initialize_model_parallel(...), or set "
            "param.tensor_model_parallel=False where tensor parallelism has one process"
        )
    # Megatron marks experts by either
    if getattr(param, "expert_tp", False) or not getattr(param, "allreduce", True):
        return state.get_expert_tensor_parallel_group()
    return state.get_tensor_model_parallel_group()


def _parallel_state() -> Any:
    """Megatron's module, if it is loaded and knows its groups."""
    state = sys.modules.get("megatron.core.parallel_state")
    return state if state is not None and state.model_parallel_is_initialized() else None

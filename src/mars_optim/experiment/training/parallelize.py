"""A model over the processes of a run: replicas (DDP) or shards (FSDP2), recomputed, compiled."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from ...errors import UserError
from ..plan import ExecutionOptions
from .ranks import Ranks


@dataclass(frozen=True, slots=True)
class Parallelized:
    """A model as the processes hold it.

    Args:
        bare: the task's own, under its own names; its parameters are DTensors under FSDP2.
        model: to be called in training.
        sharded: whether each process holds a share of every tensor.
    """

    bare: nn.Module
    model: nn.Module
    sharded: bool = False

    @property
    def replicated(self) -> bool:
        """Whether each process holds the whole model."""
        return isinstance(self.model, DistributedDataParallel)

    def summing(self, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of a micro-batch: replicas sum gradients in the last one.

        Shards sum in each: a process never holds a whole gradient.
        """
        if last or not isinstance(self.model, DistributedDataParallel):
            return contextlib.nullcontext()
        context: AbstractContextManager[None] = self.model.no_sync()
        return context

    def reshard(self) -> None:
        """Free the whole parameters that a forward without a backward left.

        They would go on to be used after the shards have changed.
        """
        if not self.sharded:
            return
        from torch.distributed.fsdp import FSDPModule

        for module in self.bare.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def parallelize(model: nn.Module, ranks: Ranks, execution: ExecutionOptions) -> Parallelized:
    """Put a fresh model where it is trained. Optimizers are built on ``.bare`` afterwards.

    Args:
        model: built alike in all processes; changed in place, its names stay.
        ranks: the processes.
        execution: sharding, activation checkpointing, compilation.

    Raises:
        UserError: if activations are to be recomputed but the model has no repeated blocks.
    """
    sharded = execution.sharding == "fsdp2" and ranks.world > 1
    blocks = blocks_of(model)
    if execution.activation_checkpointing:
        if not blocks:
            raise UserError(
                f"activation_checkpointing: {type(model).__name__} has no nn.ModuleList or "
                "nn.Sequential of equal blocks; turn it off"
            )
        for block in blocks:
            _recompute(block)
    if execution.compile:
        for part in blocks if sharded and blocks else [model]:
            part.compile(backend=execution.compile_backend)
    if sharded:
        _shard(model, blocks, ranks)
        return Parallelized(model, model, sharded=True)
    model.to(ranks.device)
    if ranks.world == 1:
        return Parallelized(model, model)
    devices = None if ranks.device.type == "cpu" else [ranks.device]
    return Parallelized(model, DistributedDataParallel(model, device_ids=devices))


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks: the outermost lists of two or more modules of one class with weights."""
    found: list[nn.Module] = []
    for child in model.children():
        parts = list(child.children())
        listed = type(child) in (nn.ModuleList, nn.Sequential)
        alike = len(parts) > 1 and len({type(part) for part in parts}) == 1
        if listed and alike and any(True for _ in parts[0].parameters()):
            found += parts
        else:
            found += blocks_of(child)
    return found


def _shard(model: nn.Module, blocks: list[nn.Module], ranks: Ranks) -> None:
    """In place: each block's parameters are gathered for it alone, the others' for all of it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard  # takes a second to load

    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def _recompute(block: nn.Module) -> None:
    """In place, so that names in the model and its checkpoints stay as they are."""
    forward = block.forward

    def again(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    block.__dict__["forward"] = again

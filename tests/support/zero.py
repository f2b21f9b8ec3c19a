"""DeepSpeed ZeRO as an optimizer meets it, without DeepSpeed and without processes.

The optimizer is built on the model. Then each of its groups gets a flat float32 piece in place of
its tensors (stages 1 and 2), or is emptied, and gets its piece for the time of its step (stage 3).
Compared with DeepSpeed 0.19.8 by tests/integrations/real.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tests.support.toy import Batch, loss_of


class ZeroRank:
    """One rank of ``world``; all of them see the same batches, so gradients are already means."""

    def __init__(
        self,
        model: nn.Module,
        make: Callable[[list[nn.Parameter]], Optimizer],
        *,
        stage: int,
        rank: int,
        world: int,
    ) -> None:
        self.model, self.stage, self.rank, self.world = model, stage, rank, world
        self.optimizer = make(list(model.parameters()))
        self.tensors = [list(group["params"]) for group in self.optimizer.param_groups]
        self.pieces = [nn.Parameter(self.piece(ts)) for ts in self.tensors]
        for group, piece in zip(self.optimizer.param_groups, self.pieces, strict=True):
            group["params"] = [] if stage == 3 else [piece]
        if stage == 3:
            for piece in self.pieces:
                piece.ds_id = 0

    def piece(self, tensors: Iterable[Tensor]) -> Tensor:
        """This rank's of the tensors, joined and padded."""
        flat = torch.cat([t.detach().flatten() for t in tensors])
        return nn.functional.pad(flat, (0, -len(flat) % self.world)).chunk(self.world)[self.rank]

    def step(self, batch: Batch) -> None:
        self.model.zero_grad()
        loss_of(self.model, batch).backward()
        groups = self.optimizer.param_groups
        for piece, tensors in zip(self.pieces, self.tensors, strict=True):
            piece.grad = self.piece([t.grad for t in tensors if t.grad is not None]).clone()
        if self.stage < 3:
            self.optimizer.step()
            return
        for group, piece in zip(groups, self.pieces, strict=True):
            group["params"] = [piece]
            self.optimizer.step()
            group["params"] = []


def gather(ranks: list[ZeroRank]) -> None:
    """The pieces of all ranks into the model of each."""
    for i, tensors in enumerate(ranks[0].tensors):
        flat = torch.cat([rank.pieces[i].detach() for rank in ranks])
        sizes = [t.numel() for t in tensors]
        parts = flat[: sum(sizes)].split(sizes)
        for rank in ranks:
            for t, part in zip(rank.tensors[i], parts, strict=True):
                t.data.copy_(part.view_as(t))

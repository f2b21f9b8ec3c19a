"""Tokens in one memory map or in many, read as one row."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor


class Tokens:
    """Shards in a row, of which only what is asked for is read.

    Args:
        shards: 1-D, of any whole-number type (memory maps or tensors).
    """

    def __init__(self, shards: Sequence[Tensor]) -> None:
        self.shards = [shard for shard in shards if len(shard)]
        self._ends = list(accumulate(map(len, self.shards)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def windows(self, offsets: Tensor, length: int) -> Tensor:
        """(offsets, length) of token ids, int64: the windows that begin at ``offsets``."""
        if len(self.shards) == 1 and self.shards[0].dtype == torch.uint8:
            return self.shards[0][offsets[:, None] + torch.arange(length, device="cpu")].long()
        return torch.stack([self._window(int(at), length) for at in offsets])

    def _window(self, at: int, length: int) -> Tensor:
        parts, shard = [], bisect_right(self._ends, at)
        at -= self._ends[shard] - len(self.shards[shard])
        while length:
            part = self.shards[shard][at : at + length].long()
            parts.append(part)
            shard, at, length = shard + 1, 0, length - len(part)
        return torch.cat(parts)

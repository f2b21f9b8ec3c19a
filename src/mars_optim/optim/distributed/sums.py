"""Sums over the processes that cut tensors, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Processes = tuple[Any, ...]  # groups over which a sum is that of the whole, one after the other


def sum_over(parts: Sequence[tuple[Tensor, Processes]]) -> None:
    """Sum each tensor, in place, over its processes: one all-reduce for each group of them.

    All processes must call it with tensors of the same sizes, in the same order.
    """
    for group in dict.fromkeys(group for _, among in parts for group in among):
        own = [tensor for tensor, among in parts if group in among]
        flat = torch.cat([tensor.to(own[0].device).reshape(-1) for tensor in own])
        dist.all_reduce(flat, group=group)
        for tensor, total in zip(own, torch.split(flat, [t.numel() for t in own]), strict=True):
            tensor.copy_(total.view_as(tensor))

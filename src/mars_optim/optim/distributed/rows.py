"""Which rows of a sharded tensor a process has."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch


@lru_cache(maxsize=4096)
def rows_of(
    shape: torch.Size, dim: int, placements: tuple[Any, ...], ranks: tuple[tuple[int, int], ...]
) -> Sequence[int]:
    """Numbers along ``dim`` that remain after each mesh dimension has taken its part.

    Args:
        shape: of the whole tensor.
        dim: whose rows.
        placements: one per mesh dimension.
        ranks: of each mesh dimension how many processes it has, and which of them this is.
    """
    rows = torch.arange(shape[dim], device="cpu")
    for placement, (world, rank) in zip(placements, ranks, strict=True):
        if placement.is_replicate() or placement.dim % len(shape) != dim:
            continue
        factor = getattr(placement, "split_factor", None)  # of FSDP's cut of a tensor-parallel cut
        along_rows = type(placement)(0, **({} if factor is None else {"split_factor": factor}))
        parts, _ = along_rows._split_tensor(rows, world, with_padding=False)
        rows = parts[rank]
    return tuple(rows.tolist())

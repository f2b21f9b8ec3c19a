"""Several matrices in one tensor, as in a fused QKV: where each lies, and the views of them.

A group's ``split`` says it: ``3`` for three equal blocks of rows, ``(64, 16, 16)`` for blocks of so
many rows, ``((64, 16, 16), 1)`` of so many columns, ``((8, 8, 8), 0, 4)`` for blocks whose rows
come in four rounds: 8 of each, then 8 of each again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..split_numbers import Sizes, misfit, parsed

WAY_OUT = (
    "give a whole number n for n equal blocks of rows, sizes such as (64, 16, 16), or "
    "((64, 16, 16), dim, rounds)"
)
Where = tuple[int, int] | Tensor
"""Positions along a dimension: first and how many, or a list of them."""


@dataclass(frozen=True, slots=True)
class Block:
    """One matrix of a tensor: those i along ``dim`` with start <= i mod period < start + size."""

    whole: torch.Size
    dim: int
    period: int
    start: int
    size: int

    @property
    def shape(self) -> torch.Size:
        """Shape of the block."""
        length = self.before(self.whole[self.dim])
        return torch.Size((*self.whole[: self.dim], length, *self.whole[self.dim + 1 :]))

    def before(self, end: int) -> int:
        """How many of the first ``end`` rows are the block's."""
        rounds, rest = divmod(end, self.period)
        return rounds * self.size + min(max(rest - self.start, 0), self.size)

    def where(self, rows: Sequence[int]) -> Where:
        """Which of ``rows``, numbers in the whole tensor, are the block's: their positions."""
        return _where(self.period, self.start, self.size, rows)

    def of(self, x: Tensor, where: Where) -> Tensor:
        """The block of ``x``: a view, or a copy where its rows are not side by side."""
        if isinstance(where, tuple):
            return x.narrow(self.dim, *where)
        return x.index_select(self.dim, where.to(x.device))

    def put(self, x: Tensor, where: Where, block: Tensor) -> Tensor:
        """``x`` with the block written into it."""
        if isinstance(where, tuple):
            x.narrow(self.dim, *where).copy_(block)
            return x
        return x.index_copy_(self.dim, where.to(x.device), block)


@dataclass(frozen=True, slots=True)
class Split:
    """How the matrices of a group are cut into blocks.

    Args:
        sizes: of the blocks along ``dim``, in one round of them; a number for so many equal ones.
        dim: of the matrix that a layer multiplies by: 0 cuts its rows, 1 its columns.
        rounds: how often the blocks follow each other.
    """

    sizes: Sizes
    dim: int = 0
    rounds: int = 1

    @classmethod
    def of(cls, name: str, value: Any) -> Split | None:
        """Read what a group says.

        Raises:
            ValueError: for what is no split.
        """
        if value is None or isinstance(value, Split):
            return value
        found = parsed(value)
        if found is None:
            raise ValueError(f"{name}={value!r} does not split a matrix into blocks: {WAY_OUT}")
        return cls(*found)

    @property
    def given(self) -> Any:
        """As a group says it."""
        if self.dim == 0 and self.rounds == 1:
            return self.sizes
        return (self.sizes, self.dim) if self.rounds == 1 else (self.sizes, self.dim, self.rounds)

    def misfit(self, shape: torch.Size, *, stacked: bool) -> str | None:
        """Why weights of this shape cannot be cut so, or None."""
        dim = self._dim(shape, stacked)
        if dim is None:
            return "its columns are kernels, of which only the rows (dim 0) can be cut"
        return misfit(shape[dim], self.sizes, self.rounds, ("rows", "columns")[self.dim])

    def blocks(self, shape: torch.Size, *, stacked: bool) -> list[Block]:
        """The blocks of a weight of this shape, which fits."""
        dim = self._dim(shape, stacked)
        assert dim is not None
        period = shape[dim] // self.rounds
        sizes = self.sizes
        if isinstance(sizes, int):
            sizes = (period // sizes,) * sizes
        starts = [sum(sizes[:j]) for j in range(len(sizes))]
        return [
            Block(torch.Size(shape), dim, max(1, period), start, size)
            for start, size in zip(starts, sizes, strict=True)
        ]

    def _dim(self, shape: torch.Size, stacked: bool) -> int | None:
        """The tensor's dimension that is cut; None for the columns of a convolution."""
        if stacked or len(shape) == 2:
            return len(shape) - 2 + self.dim
        return 0 if self.dim == 0 else None


@lru_cache(maxsize=4096)
def _where(period: int, start: int, size: int, rows: Sequence[int]) -> Where:
    found = [at for at, row in enumerate(rows) if start <= row % period < start + size]
    first, length = (found[0] if found else 0), len(found)
    if found == list(range(first, first + length)):
        return first, length
    return torch.tensor(found, device="cpu")

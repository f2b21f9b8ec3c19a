"""Dot products of sums of independent samples: all that unbiased estimates of noise need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Dots:
    """Sums over independent, equally distributed vectors x, dealt out to blocks.

    Args:
        gram: (blocks, blocks), float64: dot products of the blocks' sums of x.
        squares: (blocks,), float64: each block's sum of |x|^2.
        counts: (blocks,), float64: each block's number of x.
    """

    gram: Tensor
    squares: Tensor
    counts: Tensor

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.counts)

    def __add__(self, other: Dots) -> Dots:
        """Dots of the longer vectors that hold both, drawn together."""
        return Dots(self.gram + other.gram, self.squares + other.squares, self.counts)

    def without(self, block: int) -> Dots:
        """All blocks but one."""
        keep = torch.arange(self.blocks, device="cpu") != block
        return Dots(self.gram[keep][:, keep], self.squares[keep], self.counts[keep])

    def squared_mean(self) -> float:
        """|E x|^2: the mean of <x_i, x_j> over all i != j. Unbiased, so it may be negative."""
        n, pairs = float(self.counts.sum()), float(self.gram.sum() - self.squares.sum())
        return pairs / (n * (n - 1))

    def variance(self) -> float:
        """tr Var x = E|x - E x|^2, unbiased."""
        n = float(self.counts.sum())
        return float(self.squares.sum() - self.gram.sum() / n) / (n - 1)


class Blocks:
    """Adds vectors up, block by block; each vector is a list of tensors.

    Memory: one vector per block, whatever the number of samples.

    Args:
        blocks: number of blocks, >= 3 for an interval.
        groups: which tensors of a vector belong together, by index.
    """

    def __init__(self, blocks: int, groups: Sequence[Sequence[int]]) -> None:
        self.groups = groups
        self.sums: list[list[Tensor]] = [[] for _ in range(blocks)]
        self.squares = torch.zeros(len(groups), blocks, dtype=torch.float64, device="cpu")
        self.counts = torch.zeros(blocks, dtype=torch.float64, device="cpu")

    def add(self, block: int, vector: Iterable[Tensor]) -> None:
        """Add one sample to a block. The tensors are copied, in float32 at least."""
        tensors = [widened(t.detach()) for t in vector]
        if self.sums[block]:
            torch._foreach_add_(self.sums[block], tensors)
        else:
            self.sums[block] = [t.clone() for t in tensors]
        self.counts[block] += 1
        for i, indices in enumerate(self.groups):
            self.squares[i, block] += sum(_dot(tensors[j], tensors[j]) for j in indices)

    def dots(self) -> list[Dots]:
        """Dots of each group of tensors."""
        return [
            Dots(self._gram(indices), self.squares[i], self.counts)
            for i, indices in enumerate(self.groups)
        ]

    def _gram(self, indices: Sequence[int]) -> Tensor:
        blocks = len(self.sums)
        gram = torch.zeros(blocks, blocks, dtype=torch.float64, device="cpu")
        for j in indices:
            rows = torch.stack([sums[j].flatten() for sums in self.sums]).double()
            gram += (rows @ rows.T).cpu()
        return gram


def widened(tensor: Tensor) -> Tensor:
    """The same numbers, dense and real, in float32 at least: sums in bfloat16 lose the noise."""
    dense = tensor.to_dense() if tensor.layout != torch.strided else tensor
    real = torch.view_as_real(dense) if dense.is_complex() else dense
    return real.to(torch.promote_types(real.dtype, torch.float32))


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.flatten().double(), b.flatten().double()))

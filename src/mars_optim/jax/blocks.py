"""Several matrices in one array, as in a fused QKV: what is cut, by the array's path, and where."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..optimizer_options import MATRIX_RULES, Rule
from ..split_numbers import misfit, parsed
from .options import Axis

Blocks = int | tuple[int, ...] | tuple[int | tuple[int, ...], int] | tuple[Any, int, int]
Splits = Mapping[str, Blocks | None] | Callable[[str], Blocks | None]
WAY_OUT = (
    "give a whole number n for n equal blocks of outputs, sizes such as (64, 16, 16), or "
    "((64, 16, 16), dim, rounds), where dim 1 cuts the inputs"
)


class Split(NamedTuple):
    """Where the blocks of one array lie: of so many rounds, each has all of them.

    Args:
        sizes: of the blocks in one round, in elements along ``axis``.
        axis: which is cut, from 0.
        rounds: how often the blocks follow each other.
    """

    sizes: tuple[int, ...]
    axis: int
    rounds: int

    def cut(self, x: jax.Array) -> list[jax.Array]:
        """The blocks, as arrays of their own."""
        before, after = x.shape[: self.axis], x.shape[self.axis + 1 :]
        rounds = x.reshape(*before, self.rounds, sum(self.sizes), *after)
        ends = [sum(self.sizes[: j + 1]) for j in range(len(self.sizes) - 1)]
        parts = jnp.split(rounds, ends, axis=self.axis + 1)
        pairs = zip(parts, self.sizes, strict=True)
        return [part.reshape(*before, self.rounds * size, *after) for part, size in pairs]

    def joined(self, parts: list[jax.Array]) -> jax.Array:
        """The array that :meth:`cut` had cut."""
        before, after = parts[0].shape[: self.axis], parts[0].shape[self.axis + 1 :]
        pairs = zip(parts, self.sizes, strict=True)
        rounds = [part.reshape(*before, self.rounds, size, *after) for part, size in pairs]
        whole = jnp.concatenate(rounds, axis=self.axis + 1)
        return whole.reshape(*before, self.rounds * sum(self.sizes), *after)


def on_blocks(
    function: Callable[..., jax.Array], split: Split | None, *arrays: jax.Array
) -> jax.Array:
    """Results of ``function`` on each block of arrays of one shape, put together again."""
    if split is None:
        return function(*arrays)
    parts = zip(*map(split.cut, arrays), strict=True)
    return split.joined([function(*blocks) for blocks in parts])


def check_rule(splits: Splits | None, rule: Rule) -> None:
    """Raise ValueError for splits with a rule that has no matrices."""
    if splits is not None and rule not in MATRIX_RULES:
        raise ValueError(
            f"split={splits!r} is of Newton-Schulz, which rule={rule!r} does not use: leave it "
            "out, or use rule='muon' or 'shampoo'"
        )


def splits_of(
    tree: Any, splits: Splits | None, output_axis: Axis, *, stacked: bool
) -> list[Split | None]:
    """The split of each leaf of a tree, None for those that are one matrix.

    Raises:
        ValueError: for a pattern that matches no path, what is no split, or does not fit.
    """
    found = jax.tree_util.tree_leaves_with_path(tree)
    if splits is None:
        return [None] * len(found)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in found]
    for pattern in splits if isinstance(splits, Mapping) else ():
        if paths and not any(re.search(pattern, path) for path in paths):
            few = ", ".join(paths[:5]) + ", ..." * (len(paths) > 5)
            raise ValueError(
                f"split[{pattern!r}] matches none of the arrays that get the rule: give a pattern "
                f"of one of {few}"
            )
    return [
        _split(path, _given(path, splits), leaf.shape, output_axis, stacked=stacked)
        for path, (_, leaf) in zip(paths, found, strict=True)
    ]


def _given(path: str, splits: Splits) -> Any:
    if not isinstance(splits, Mapping):
        return splits(path)
    return next((value for pattern, value in splits.items() if re.search(pattern, path)), None)


def _split(
    path: str, given: Any, shape: tuple[int, ...], output_axis: Axis, *, stacked: bool
) -> Split | None:
    if given is None:
        return None
    said = f"split of {path}, {given!r},"
    found = parsed(given)
    if found is None:
        raise ValueError(f"{said} does not split a matrix into blocks: {WAY_OUT}")
    sizes, dim, rounds = found
    axis = _axis(said, dim, len(shape), output_axis, stacked=stacked)
    if why := misfit(shape[axis], sizes, rounds, ("outputs", "inputs")[dim]):
        raise ValueError(f"{said} does not fit: {why}")
    if isinstance(sizes, int):
        sizes = (shape[axis] // (sizes * rounds),) * sizes
    return Split(sizes, axis, rounds)


def _axis(said: str, dim: int, ndim: int, output_axis: Axis, *, stacked: bool) -> int:
    """The array's axis that is cut: its outputs, or for dim 1 its inputs."""
    if ndim == 2 or stacked:
        return ndim - 1 - dim if output_axis == "last" else ndim - 2 + dim
    if dim == 1:
        raise ValueError(f"{said} cuts inputs that are kernels: only outputs can be cut there")
    return ndim - 1 if output_axis == "last" else 0

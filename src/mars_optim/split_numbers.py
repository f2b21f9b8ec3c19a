"""Blocks of a ``split`` as numbers, for torch and JAX: their sizes, dimension and rounds."""

from __future__ import annotations

from typing import Any

Sizes = int | tuple[int, ...]


def parsed(value: Any) -> tuple[Sizes, int, int] | None:
    """Sizes, dim and rounds of ``3``, ``(64, 16, 16)``, ``((64, 16), 1)`` or ``((8, 8), 0, 4)``.

    Returns:
        None for what is no split.
    """
    nested = isinstance(value, tuple | list) and value and isinstance(value[0], tuple | list)
    sizes, dim, rounds, *more = (*value, *(0, 1)[len(value) - 1 :]) if nested else (value, 0, 1)
    numbers = list(sizes) if isinstance(sizes, tuple | list) else [sizes]
    whole = all(type(n) is int and n > 0 for n in (*numbers, rounds))
    if more or not numbers or not whole or type(dim) is not int or dim not in (0, 1):
        return None
    return (sizes if type(sizes) is int else tuple(numbers)), dim, rounds


def misfit(length: int, sizes: Sizes, rounds: int, what: str) -> str | None:
    """Why a dimension of this length cannot be cut so, or None; ``what`` is it, such as rows."""
    if isinstance(sizes, int):
        many = sizes * rounds
        return f"{length} {what} are not {many} equal blocks" if length % many else None
    if sum(sizes) * rounds == length:
        return None
    total = f"{rounds} times " * (rounds > 1) + " + ".join(map(str, sizes))
    return f"it has {length} {what}, not {total} = {sum(sizes) * rounds}"

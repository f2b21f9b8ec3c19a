"""Noise, signal and correction in a row, by parameter group. No torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

FIELDS = "gradient signal noise noise_scale cosine correction_ratio clip_rate gamma tensors".split()
"""Fields of a group, as ``optimizer.telemetry()`` has them."""


def to_row(groups: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """``FIELD/GROUP`` -> number, for a row's ``noise``; what is not finite is left out.

    Args:
        groups: each with ``kind``, its number ``group`` and FIELDS; two of one kind are told apart
            by their numbers.
    """
    kinds = Counter(group["kind"] for group in groups)
    names = [g["kind"] if kinds[g["kind"]] == 1 else f"{g['kind']} {g['group']}" for g in groups]
    return {
        f"{field}/{name}": group[field]
        for name, group in zip(names, groups, strict=True)
        for field in FIELDS
        if math.isfinite(group[field])
    }


def from_row(noise: object) -> list[dict[str, float]]:
    """The groups of a row's ``noise``, with the fields that they have."""
    found: dict[str, dict[str, float]] = {}
    for key, value in noise.items() if isinstance(noise, dict) else ():
        field, _, name = str(key).partition("/")
        if field in FIELDS and isinstance(value, int | float):
            found.setdefault(name, {})[field] = value
    return list(found.values())

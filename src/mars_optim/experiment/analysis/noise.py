"""The noise that the candidate's steps saw, over training, and what its correction did to it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ...integrations.telemetry_rows import from_row
from ..records import Run

NEEDED = frozenset("gradient signal noise correction_ratio clip_rate gamma tensors".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisePoint:
    """All groups with a correction together, mean over seeds, at one number of tokens.

    Args:
        tokens: trained on.
        signal: |E g|^2, from pairs of consecutive gradients; may be below 0 in noise.
        noise: tr Var(g) of a batch.
        correction_ratio: k |g_t - g_{t-1}| / |g_t|.
        clip_rate: share of tensors whose c_t was clipped.
        gamma: scale of the correction, mean over groups.
    """

    tokens: int
    signal: float
    noise: float
    correction_ratio: float
    clip_rate: float
    gamma: float

    @property
    def scale(self) -> float:
        """tr Var(g) / |E g|^2, in batches; infinite where no signal is seen."""
        return self.noise / self.signal if self.signal > 0 else math.inf


def noise_points(runs: Iterable[Run]) -> tuple[NoisePoint, ...]:
    """The course of the noise over these runs; empty where none of them measured it."""
    seen: dict[int, list[NoisePoint]] = defaultdict(list)
    for run in runs:
        for row in run.rows:
            if point := _point(row):
                seen[point.tokens].append(point)
    fields = ("signal", "noise", "correction_ratio", "clip_rate", "gamma")
    return tuple(
        NoisePoint(tokens=tokens, **{f: fmean(getattr(p, f) for p in points) for f in fields})
        for tokens, points in sorted(seen.items())
    )


def _point(row: Mapping[str, Any]) -> NoisePoint | None:
    groups = [group for group in from_row(row.get("noise")) if group.keys() >= NEEDED]
    if not groups or "tokens" not in row:
        return None
    squares = [g["gradient"] ** 2 for g in groups]
    changes = [s * g["correction_ratio"] ** 2 for s, g in zip(squares, groups, strict=True)]
    clipped = [g["tensors"] * g["clip_rate"] for g in groups]
    return NoisePoint(
        tokens=row["tokens"],
        signal=sum(g["signal"] for g in groups),
        noise=sum(g["noise"] for g in groups),
        correction_ratio=math.sqrt(sum(changes) / sum(squares)) if sum(squares) else 0.0,
        clip_rate=sum(clipped) / sum(g["tensors"] for g in groups),
        gamma=fmean(g["gamma"] for g in groups),
    )

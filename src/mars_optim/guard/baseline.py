"""The AdamW history that a guard measures against."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ..errors import UserError
from ..files import read_json, write_json

FORMAT = 1
LEAST = 100  # losses; fewer tell the size of the noise to no better than 15 %
TAIL = 0.97
COLUMNS = ("losses", "grad_norms", "clip_shares", "step_seconds")


@dataclass(frozen=True, slots=True)
class Baseline:
    """History of AdamW's steps, oldest first; only the losses are needed.

    Args:
        losses: of consecutive steps, 100 at the least.
        grad_norms: of the whole gradient, before the loop's clip.
        clip_shares: share of AdamW's tensors that MARS's clip would have touched.
        step_seconds: wall time of a step.

    Raises:
        ValueError: if there are too few losses, or some are not finite.
    """

    losses: tuple[float, ...]
    grad_norms: tuple[float, ...] = ()
    clip_shares: tuple[float, ...] = ()
    step_seconds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in COLUMNS:
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        if len(self.losses) < LEAST:
            raise ValueError(
                f"baseline holds {len(self.losses)} losses; at least {LEAST} steps of AdamW are "
                "needed to know its noise"
            )
        if not all(map(math.isfinite, self.losses)):
            raise ValueError("baseline holds losses that are not finite: record a healthy stretch")

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Baseline:
        """From rows of a log, one per step.

        Args:
            rows: with ``loss``, and where known ``grad_norm``, ``clip_share``, ``step_seconds``.

        Raises:
            ValueError: as the class.
        """
        rows = list(rows)

        def column(key: str) -> tuple[float, ...]:
            return tuple(float(row[key]) for row in rows if row.get(key) is not None)

        keys = ("loss", "grad_norm", "clip_share", "step_seconds")
        return cls(*(column(key) for key in keys))

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all."""
        write_json(Path(path), {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, path: str | Path) -> Baseline:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: naming the file, if it is missing, damaged or of another format.
        """
        try:
            data = read_json(Path(path))
        except UserError as error:
            raise ValueError(f"baseline: {error}") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"baseline: {path} is not a baseline of format {FORMAT}")
        try:
            return cls(**{name: data.get(name, ()) for name in COLUMNS})
        except (TypeError, ValueError) as error:
            raise ValueError(f"baseline: {path}: {error}") from None

    def loss_noise(self, window: int, patience: int) -> Noise:
        """How far losses stray from the median of the ``window`` losses before them.

        Raises:
            ValueError: if there are fewer than ``2 * patience - 1`` losses.
        """
        if len(self.losses) < 2 * patience - 1:
            raise ValueError(
                f"baseline holds {len(self.losses)} losses; at least {2 * patience - 1} are needed "
                f"with patience = {patience}: record more steps, or lower patience"
            )
        window = min(window, len(self.losses) // 2)
        gaps = [
            self.losses[i] - median(self.losses[i - window : i])
            for i in range(window, len(self.losses))
        ]
        middles = [median(gaps[i - patience : i]) for i in range(patience, len(gaps) + 1)]
        # of independent losses, the deviation of a median of n is 1.2533 / sqrt(n) of one's
        independent = 1.2533 * _deviation(gaps) / math.sqrt(patience)
        return Noise(
            single=_deviation(gaps),
            middle=max(independent, _deviation(middles)),
            tail=quantile(gaps, TAIL),
        )


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise of the loss, in its own units.

    Args:
        single: robust deviation of one loss.
        middle: robust deviation of the median of ``patience`` losses, which is larger than chance
            would have it where neighbours are alike.
        tail: what one loss in 33 lies above.
    """

    single: float
    middle: float
    tail: float


def _deviation(values: Sequence[float]) -> float:
    """1.4826 times the median absolute deviation: the standard deviation, if they are normal."""
    centre = median(values)
    return 1.4826 * median(abs(value - centre) for value in values)


def quantile(values: Iterable[float], share: float) -> float:
    """The value below which ``share`` of the finite ones lie; inf if there are none."""
    known = sorted(v for v in values if math.isfinite(v))
    return known[min(len(known) - 1, int(share * len(known)))] if known else math.inf

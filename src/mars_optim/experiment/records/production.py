"""Results of stages 2 and 3, read back: a canary's file, and the log of a guard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...files import read_json

CANARY_FORMAT = 1  # of canary.json
RECOMMENDATIONS = ("production", "back", "not-enough-runs")
EVENTS = ("start", "checkpoint", "warn", "clear", "rollback", "end")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One data order of a canary: final losses (None if diverged), and whether an arm spiked."""

    seed: int
    adamw_loss: float | None
    mars_loss: float | None
    adamw_spike: bool
    mars_spike: bool
    step_time: float | None

    @property
    def difference(self) -> float | None:
        """Loss of MARS less loss of AdamW, nats; None if either diverged."""
        if self.adamw_loss is None or self.mars_loss is None:
            return None
        return self.mars_loss - self.adamw_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryRecord:
    """A canary's result.

    Args:
        path: of the file.
        date: of its last run; empty where it is not recorded.
        candidate: the arm; empty likewise.
        task: of its plan; empty likewise.
        settings: steps, gamma, clip and the rule.
        recommendation: "production", "back" or "not-enough-runs".
        sentence: with its numbers, in English.
        mean: of the paired loss difference, nats; None without a pair.
        low: lower end of its interval; None where it is not bounded.
        high: likewise, upper.
        orders: each data order.
        scales: of the checkpoint's learning rate, by arm.
    """

    path: Path
    date: str
    candidate: str
    task: Mapping[str, Any]
    settings: Mapping[str, Any]
    recommendation: str
    sentence: str
    mean: float | None
    low: float | None
    high: float | None
    orders: tuple[Order, ...]
    scales: Mapping[str, float]

    @property
    def spiked(self) -> int:
        """Data orders in which the candidate spikes and AdamW does not."""
        return sum(order.mars_spike and not order.adamw_spike for order in self.orders)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One line of a guard's log: when, at which step, and the signal's value and limit, if any."""

    event: str
    step: int
    time: str
    signal: str = ""
    value: str = ""
    limit: str = ""
    to_step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardRecord:
    """A guard's log since the last switch.

    Args:
        path: of the file.
        switches: that the log has.
        start: the switch.
        last: the last line.
        trips: warnings, in order.
        rollbacks: of these, those that went back.
    """

    path: Path
    switches: int
    start: Reading
    last: Reading
    trips: tuple[Reading, ...]
    rollbacks: tuple[Reading, ...]

    @property
    def ended(self) -> bool:
        """Whether the run was ended by ``Guard.finish`` and not gone on with since."""
        return self.last.event == "end"


def read_canary(path: Path) -> CanaryRecord:
    """Read what ``mars canary`` wrote.

    Args:
        path: of ``canary.json``, or its folder.

    Raises:
        UserError: in one line, if there is none, or the file is damaged or of another kind.
    """
    file = path / "canary.json" if path.is_dir() else path
    data = read_json(file)
    try:
        if data["format"] != CANARY_FORMAT:
            raise ValueError(f"format {data['format']!r} instead of {CANARY_FORMAT}")
        return _canary(file, data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"no key {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{file} is not a canary's result ({why}); `mars canary` writes a new one"
        ) from None


def _canary(path: Path, data: Any) -> CanaryRecord:
    ends = data["difference"] or {}
    if data["recommendation"] not in RECOMMENDATIONS:
        raise ValueError(f"recommendation {data['recommendation']!r}")
    orders = tuple(
        Order(
            seed=int(row["seed"]),
            adamw_loss=_number(row["adamw_loss"]),
            mars_loss=_number(row["mars_loss"]),
            adamw_spike=bool(row["adamw_spike"]),
            mars_spike=bool(row["mars_spike"]),
            step_time=_number(row["step_time"]),
        )
        for row in data["seeds"]
    )
    settings = dict(data["settings"])
    for key in ("steps", "margin", "confidence", "gamma", "clip"):
        settings[key] = float(settings[key])
    return CanaryRecord(
        path=path,
        date=str(data.get("date", "")),
        candidate=str(data.get("candidate", "")),
        task=dict(data.get("task", {})),
        settings=settings,
        recommendation=data["recommendation"],
        sentence=str(data["sentence"]),
        mean=_number(ends.get("mean")),
        low=_number(ends.get("low")),
        high=_number(ends.get("high")),
        orders=orders,
        scales={str(name): float(scale) for name, scale in data["scales"].items()},
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def read_guard(path: Path) -> GuardRecord:
    """Read the log of a ``Guard``; a last line that is not whole yet is left out.

    Args:
        path: of the JSON Lines file.

    Raises:
        UserError: in one line, if it cannot be read, is damaged, or has no switch.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    lines = text.split("\n")[:-1]  # the last one is written at this moment
    rows = [_reading(path, n, line) for n, line in enumerate(lines, start=1) if line.strip()]
    starts = [i for i, row in enumerate(rows) if row.event == "start"]
    if not starts:
        raise UserError(f"{path} is not a guard's log: no line has the event 'start'")
    since = rows[starts[-1] :]
    return GuardRecord(
        path=path,
        switches=len(starts),
        start=since[0],
        last=since[-1],
        trips=tuple(row for row in since if row.event == "warn"),
        rollbacks=tuple(row for row in since if row.event == "rollback"),
    )


def _reading(path: Path, number: int, line: str) -> Reading:
    try:
        row = json.loads(line)
        if row["event"] not in EVENTS:
            raise ValueError(f"event {row['event']!r}")
        to_step = row.get("to_step")
        return Reading(
            event=row["event"],
            step=int(row["step"]),
            time=str(row.get("time", "")),
            signal=str(row.get("signal", "")),
            value=_text(row.get("value")),
            limit=_text(row.get("limit")),
            to_step=None if to_step is None else int(to_step),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        why = f"no key {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{path} is not a guard's log, or damaged: line {number} ({why}); delete that line"
        ) from None


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

"""From the columns of somebody's file to a run's rows and outcome."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..records import Outcome, UserError
from ..records.config import option
from ..records.errors import did_you_mean

ROWS = 50  # training rows per run


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names in the files."""

    step: str = option("step", "steps taken")
    loss: str = option("loss", "training loss, if there")
    valid_loss: str = option("valid_loss", "validation loss; the last one of a run counts")
    tokens: str = option("tokens", "tokens trained on so far, if there")
    tokens_per_step: int = option(1, "where tokens are not there", low=1)
    seconds: str = option("seconds", "of training so far, without evaluation, if there")
    grad_norm: str = option("grad_norm", "if there")
    state_bytes: str = option("state_bytes", "of the optimizer, if there")
    parameters: str = option("parameters", "of the model, if there")


@dataclass(slots=True)
class Recorder:
    """Takes rows as they come, writes the run's own, and knows how it stands.

    Args:
        columns: names in the rows.
        steps: of the whole run.
        write: takes the run's rows: training loss as the mean of about a fiftieth of the run.
    """

    columns: Columns
    steps: int
    write: Callable[..., None]
    step: int = 0
    valid: tuple[int, float] | None = None
    broken: str = ""
    known: set[str] = field(default_factory=set)
    last: dict[str, tuple[int, float]] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)

    def add(self, row: dict[str, Any]) -> None:
        """Take one row.

        Raises:
            UserError: if it has a loss but no step, or what should be a number is none.
        """
        c = self.columns
        self.known |= row.keys()
        if c.loss not in row and c.valid_loss not in row:
            self._keep(row, int(_number(row, c.step)) if c.step in row else self.step)
            return
        if c.step not in row:
            raise UserError(
                f"a row has a loss but no {c.step!r}: name the column of steps; it has "
                f"{', '.join(row)}"
            )
        step = int(_number(row, c.step))
        self._keep(row, step)
        if self.losses and step // self._every > self.step // self._every:
            self._flush()
        self.step = max(self.step, step)
        if c.loss in row:
            self.losses.append(self._loss(row, c.loss, "training loss"))
        if c.valid_loss in row:
            self._flush()
            self.valid = (step, self._loss(row, c.valid_loss, "validation loss"))
            self.write(**self._at(step), valid_loss=self.valid[1])

    def finish(self) -> None:
        """No row comes any more."""
        self._flush()

    def outcome(self, seconds: float) -> Outcome:
        """How the run ended.

        Args:
            seconds: that it took, where its rows say nothing of it.
        """
        self.finish()
        steps = self.step if self.broken else self.steps
        tokens = self._at_step("tokens", steps)
        return Outcome(
            status="diverged" if self.broken else "finished",
            final_loss=None if self.broken or self.valid is None else self.valid[1],
            steps=steps,
            tokens=round(steps * self.columns.tokens_per_step if tokens is None else tokens),
            seconds=self._at_step("seconds", steps) or seconds,
            parameters=round(self.last.get("parameters", (0, 0.0))[1]),
            state_bytes=round(self.last.get("state_bytes", (0, 0.0))[1]),
            reason=self.broken,
        )

    def missing(self, column: str) -> str:
        """What there is instead of a column that never came."""
        name = getattr(self.columns, column)
        if not self.known:
            return "there are no rows"
        return f"no row has {name!r}; there are {', '.join(sorted(self.known))}" + did_you_mean(
            name, self.known
        )

    @property
    def _every(self) -> int:
        return max(1, self.steps // ROWS)

    def _flush(self) -> None:
        if self.losses:
            extra = {"grad_norm": self.last["grad_norm"][1]} if "grad_norm" in self.last else {}
            mean = sum(self.losses) / len(self.losses)
            self.write(**self._at(self.step), loss=mean, **extra)
            self.losses = []

    def _keep(self, row: dict[str, Any], step: int) -> None:
        for name in ("tokens", "seconds", "grad_norm", "state_bytes", "parameters"):
            if row.get(getattr(self.columns, name)) is not None:
                self.last[name] = (step, _number(row, getattr(self.columns, name)))

    def _loss(self, row: dict[str, Any], column: str, what: str) -> float:
        value = _number(row, column)
        if not math.isfinite(value):
            self.broken = self.broken or f"{what} {value} at step {self.step}"
        return value

    def _at(self, step: int) -> dict[str, Any]:
        tokens = self._at_step("tokens", step)
        at: dict[str, Any] = {
            "step": step,
            "tokens": round(step * self.columns.tokens_per_step if tokens is None else tokens),
        }
        if "seconds" in self.last:
            at["seconds"] = round(self.last["seconds"][1], 4)
        return at

    def _at_step(self, name: str, step: int) -> float | None:
        """A count that grows evenly, at a step soon after its last row."""
        at, value = self.last.get(name, (0, 0.0))
        return value * step / at if at else None


def _number(row: dict[str, Any], column: str) -> float:
    value = row[column]
    if value is None:  # how JSON writes nan
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"{column!r} is no number: {value!r}") from None

"""From the columns of somebody's file to a run's rows and outcome."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...errors import UserError, did_you_mean
from ..plan.decision import LOSS
from ..plan.table import Whole, option, table
from ..plan.task import check_scores
from ..records import Outcome
from .counts import Count
from .losses import End, finite, number, step_of

ROWS = 50  # training rows per run
MOST_NAMES = 30  # of columns in a message
COUNTS = ("tokens", "seconds")
SAME = 1e-6  # relative difference of one loss evaluated twice


@table
class Columns:
    """Names in the files."""

    step: str = option("step", "steps taken")
    loss: str = option("loss", "training loss, if there")
    valid_loss: str = option("valid_loss", "validation loss; the last one of a run counts")
    tokens: str = option("tokens", "tokens trained on so far, if there")
    tokens_per_step: Whole = option(1, "where tokens are not there", ge=1)
    seconds: str = option("seconds", "of training so far, without evaluation, if there")
    grad_norm: str = option("grad_norm", "if there")
    state_bytes: str = option("state_bytes", "of the optimizer, if there")
    parameters: str = option("parameters", "of the model, if there")
    scores: tuple[str, ...] = option(
        (), "further metrics, shown beside it; decision.metric joins them by itself"
    )

    def __post_init__(self) -> None:
        """Check the names of the metrics.

        Raises:
            UserError: for one that every row has already.
        """
        check_scores(self.scores, "columns.scores")

    @property
    def losses(self) -> frozenset[str]:
        """Columns of losses and metrics, which must come from one place each."""
        return frozenset({self.loss, self.valid_loss, *self.scores} - {""})


@dataclass(slots=True)
class Recorder:
    """Takes rows as they come, writes the run's own, and knows how it stands.

    Args:
        columns: names in the rows.
        steps: of the whole run; 0 if only its rows tell.
        write: takes the run's rows: training loss as the mean of about a fiftieth of the run.
        live: the run goes on, and ends with the first row that has nothing but a loss that is no
            number; of a finished one it counts what came after, too.
        end: what its losses said so far.
    """

    columns: Columns
    steps: int
    write: Callable[..., None]
    live: bool = False
    end: End = field(default_factory=End)
    step: int = 0
    valid: tuple[int, float] | None = None
    other: float | None = None  # another loss of the same step
    scores: dict[str, tuple[int, float]] = field(default_factory=dict)  # last: step and value
    broken: str = ""
    known: set[str] = field(default_factory=set)
    empty: dict[str, int] = field(default_factory=dict)  # step of the last row without a value
    last: dict[str, tuple[int, float]] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    trained: bool = False
    counts: dict[str, Count] = field(default_factory=lambda: {n: Count() for n in COUNTS})

    def add(self, row: dict[str, Any]) -> None:
        """Take one row. ``null``, an empty cell and a missing key are no value.

        Raises:
            UserError: naming the row, if it has a loss but no step, or what should be a number is
                none.
        """
        try:
            self._add(row)
        except UserError as error:
            place = getattr(row, "place", "")
            raise UserError(f"{place}: {error}" if place else str(error)) from None

    def _add(self, row: dict[str, Any]) -> None:
        c = self.columns
        self.known |= row.keys()
        train = number(row, c.loss) if c.loss else None
        valid = number(row, c.valid_loss)
        scores = {n: v for n in c.scores if (v := number(row, n)) is not None}
        if train is None and valid is None and not scores:
            with contextlib.suppress(UserError):  # a row without a metric may have any step
                step = step_of(row, c.step)
                self._keep(row, self.step if step is None else step)
                self.empty |= {n: step for n in (c.loss, c.valid_loss) if n in row and step}
            return
        step = step_of(row, c.step)
        if step is None:
            what = "a loss" if not scores else "a metric"
            raise UserError(
                f"a row has {what} but no {c.step!r}: name the column of steps; the row has "
                f"{', '.join(row)}"
            )
        self._keep(row, step)
        if self.losses and step // self._every > self.step // self._every:
            self._flush()
        self.step = max(self.step, step)
        sure = self.end.add(step, train, valid) if train is not None or valid is not None else ""
        if self.live:
            self.broken = self.broken or sure
        self._take(step, train, valid, scores)

    def _take(
        self, step: int, train: float | None, valid: float | None, scores: dict[str, float]
    ) -> None:
        if train is not None and math.isfinite(train):
            self.losses.append(train)
            self.trained = True
        if valid is not None and math.isfinite(valid):
            self._flush()
            if self.valid is None or step >= self.valid[0]:
                again = self.valid is not None and step == self.valid[0]
                self.other = self.valid[1] if again and self.valid else None
                self.valid = (step, valid)
            self.write(**self._at(step), valid_loss=valid, **scores)
        elif scores:
            self._flush()
            self.write(**self._at(step), **scores)
        self.scores |= {n: (step, v) for n, v in scores.items() if step >= self._scored(n)}

    def _scored(self, name: str) -> int:
        """The last step at which a metric was told; -1 without any."""
        return self.scores.get(name, (-1, 0.0))[0]

    def finish(self) -> None:
        """No row comes any more."""
        self._flush()
        if not self.broken:
            self.broken = self.end.broken(self.valid[0] if self.valid else -1, self.steps)

    def check_result(self) -> None:
        """See that the result is one number, and that a curve that was asked for is there.

        Raises:
            UserError: if the last step has two, or no row has the column of the training loss.
        """
        if (
            self.valid
            and self.other is not None
            and not math.isclose(self.other, self.valid[1], rel_tol=SAME)
        ):
            raise UserError(
                f"step {self.valid[0]} has two validation losses, {self.other:g} and "
                f"{self.valid[1]:g}: the file may hold two runs; leave one out"
            )
        if self.untrained and self.columns.loss != Columns().loss:
            raise UserError(self.untrained)

    @property
    def untrained(self) -> str:
        """Why there is no training loss, if there is none."""
        if self.trained or self.broken or not self.columns.loss:
            return ""
        return f"no training loss: {self.missing('loss')}"

    @property
    def no_tokens(self) -> str:
        """Why the plan's own column of tokens tells nothing; empty if it does or need not."""
        named = self.columns.tokens not in ("", Columns().tokens)
        if not named or "tokens" in self.last or self.columns.tokens_per_step != 1:
            return ""
        return f"no tokens: {self.missing('tokens')}"

    @property
    def uncounted(self) -> str:
        """Name of tokens or seconds that are told for each step alone; empty without any."""
        wrong = {"tokens": self.counts["tokens"].of_single_steps}
        wrong["seconds"] = self.counts["seconds"].falls
        return next((name for name in COUNTS if wrong[name]), "")

    def told_apart(self, name: str) -> str:
        """Fault of a column of :attr:`uncounted`."""
        column = getattr(self.columns, name)
        return (
            f"{column!r} is {self.counts[name]}: it must count from the beginning of the run, not "
            "each step alone"
        )

    @property
    def other_losses(self) -> list[str]:
        """Columns that look like the training loss by their names."""
        taken = {self.columns.loss, self.columns.valid_loss}
        return sorted(name for name in self.known - taken if "loss" in name.lower())

    @property
    def unclear(self) -> str:
        """Text on what may be a divergence or no value, in a run without its result; else empty."""
        doubt = self.end.unclear(self.valid[0] if self.valid else -1, self.steps)
        if not doubt:
            return ""
        return (
            f"{doubt} may mean a divergence or, as elsewhere in this log, a missing "
            "value: write nothing or null for a missing value"
        )

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
            scores={} if self.broken else self._last_scores(),
        )

    def _last_scores(self) -> dict[str, float]:
        return {name: v for name, (_, v) in self.scores.items() if math.isfinite(v)}

    @property
    def tells_seconds(self) -> bool:
        """Whether the rows say what the steps took."""
        return bool(self._at_step("seconds", 1))

    def result(self, metric: str) -> tuple[int, float] | None:
        """Step and value of the last of a metric that is a number; None without any."""
        return self.valid if metric == LOSS else self.scores.get(metric)

    def no_result(self, metric: str, steps: int) -> str:
        """Why a metric tells nothing of the end of a run; empty if it does."""
        found = self.result(metric)
        if found is None:
            return self._missing(metric) if metric != LOSS else self.missing("valid_loss")
        if not math.isfinite(found[1]):
            return f"its last {metric!r}, at step {found[0]}, is {found[1]}"
        if steps and not steps - 1 <= found[0] <= steps:
            return f"its last {metric!r} is of step {found[0]}, not {steps}"
        return ""

    def missing(self, column: str) -> str:
        """Columns that the rows have instead of one that never came."""
        return self._missing(getattr(self.columns, column))

    def _missing(self, name: str) -> str:
        if not self.known:
            return "there are no rows"
        if name in self.known:
            return f"{name!r} holds no number in any row"
        there = sorted(self.known)
        more = f" and {len(there) - MOST_NAMES} more" if len(there) > MOST_NAMES else ""
        names = ", ".join(there[:MOST_NAMES])
        return f"no row has {name!r}; known: {names}{more}" + did_you_mean(name, self.known)

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
            value = finite(row, getattr(self.columns, name))
            if value is not None:
                self.last[name] = (step, value)
                if name in self.counts:
                    self.counts[name].add(step, value)

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

"""Interface of executors, which carry out runs on this machine or on many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..plan import RunSpec


@dataclass(frozen=True, slots=True)
class Event:
    """A report on a piece of work.

    Args:
        kind: "ready" (value: hash of the data), "probed" (its result), "step" (steps taken),
            "done" (the outcome), "failed" (the :class:`Failure`) or "waits"
            (why nothing can be seen of it yet, or an empty text once something can).
        run_id: of the run, or what else was asked for.
        value: as above.
    """

    kind: Literal["ready", "probed", "step", "done", "failed", "waits"]
    run_id: str
    value: Any


class Executor(Protocol):
    """Takes work and tells what has become of it; a context that is left ends what it may.

    It begins busy with loading the task, which ends in the event "ready".
    """

    count: int
    """Runs at a time."""

    sharing: int
    """Runs at a time on one machine, which slow each other down."""

    @property
    def running(self) -> Sequence[RunSpec]:
        """Runs under way."""
        ...

    @property
    def busy(self) -> int:
        """Pieces of work under way."""
        ...

    @property
    def free(self) -> int:
        """Pieces of work that can be given now."""
        ...

    def give(self, work: RunSpec | Literal["probe"], seconds: float = ...) -> None:
        """Start a run, or the measurement of step times, and end it after ``seconds``."""
        ...

    def events(self, timeout: float) -> Iterator[Event]:
        """Return new events; wait at most ``timeout`` seconds for the first.

        Raises:
            UserError: if no run can go on.
        """
        ...

    def __enter__(self) -> Executor: ...

    def __exit__(self, *exception: object) -> None: ...

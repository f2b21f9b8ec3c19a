"""Worker processes on this machine: a run at a time each, replaced when they die or hang."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import multiprocessing.connection
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

from ...errors import UserError
from ..plan import Plan, RunSpec
from ..records import Failure
from .base import Event
from .resources import Resources, divided
from .worker import serve

STARTS = 4  # of a worker in a row that end before it has loaded the task


@dataclass(slots=True)
class _Worker:
    resources: Resources
    process: BaseProcess
    connection: Connection
    work: RunSpec | str | None = "starting"
    deadline: float = math.inf  # by the monotonic clock
    starts: int = 1


class LocalExecutor:
    """A few processes with the task loaded, each busy with one run or free.

    A process that dies or takes too long costs its run this try and nothing else: another takes
    its place. Leaving the context ends them all at once; a run under way is left unfinished.

    Args:
        plan: whose task they load.
        out: folder of the pilot.
        count: of processes.
    """

    def __init__(self, plan: Plan, out: Path, count: int) -> None:
        self._plan, self._out = plan, out
        self.count = self.sharing = count
        self._data: str | None = None
        self._workers: list[_Worker] = []
        try:
            for resources in divided(count):
                self._workers.append(_Worker(resources, *self._start(resources)))
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()

    @property
    def running(self) -> list[RunSpec]:
        """Runs under way."""
        return [w.work for w in self._workers if isinstance(w.work, RunSpec)]

    @property
    def busy(self) -> int:
        """Workers with work."""
        return len(self._workers) - self.free

    @property
    def free(self) -> int:
        """Workers without work."""
        return sum(w.work is None for w in self._workers)

    def give(self, work: RunSpec | Literal["probe"], seconds: float = math.inf) -> None:
        """Give a run, or the measurement of step times, to a free worker.

        Args:
            work: to do.
            seconds: after which it is ended as timed out.
        """
        worker = next(w for w in self._workers if w.work is None)
        worker.work, worker.deadline = work, time.monotonic() + seconds
        with contextlib.suppress(ConnectionError):  # it has just died: events() will say so
            worker.connection.send(work)

    def events(self, timeout: float) -> Iterator[Event]:
        """Return new events; wait at most ``timeout`` seconds for the first.

        Raises:
            UserError: if the task cannot be loaded, or nothing can be written.
        """
        soonest = min(w.deadline for w in self._workers) - time.monotonic()
        connections = [w.connection for w in self._workers]
        heard = multiprocessing.connection.wait(connections, max(0.0, min(timeout, soonest)))
        for worker in self._workers:
            if worker.connection in heard:
                yield from self._hear(worker)
            elif time.monotonic() > worker.deadline:
                yield self._lose(worker, "timed out", "it took longer than its time limit")

    def _hear(self, worker: _Worker) -> Iterator[Event]:
        try:
            kind, value = worker.connection.recv()
        except (EOFError, ConnectionError):
            yield from self._died(worker)
            return
        if kind == "mistake":
            raise UserError(value)
        if kind == "crash":
            reason, details = value
            if worker.work == "starting":
                raise RuntimeError(f"the task cannot be loaded:\n{details}")
            yield self._lose(worker, "failed", reason, details)
            return
        event = Event(kind, _name(worker.work), value)
        if kind == "ready":
            worker.starts, event_is_news = 0, self._data is None
            if value != (self._data or value):
                raise UserError("the data have changed since the pilot started: start it again")
            self._data = value
        if kind != "step":
            worker.work, worker.deadline = None, math.inf
        if kind != "ready" or event_is_news:
            yield event

    def _died(self, worker: _Worker) -> Iterator[Event]:
        worker.process.join(timeout=5.0)
        how = _how_it_ended(worker.process.exitcode)
        if worker.work is None or worker.work == "starting":
            if worker.starts >= STARTS:
                raise UserError(
                    f"a worker ended {worker.starts} times while it loaded the task {how}"
                )
            self._replace(worker)
        else:
            yield self._lose(worker, "died", f"its process was ended from outside {how}")

    def _lose(
        self,
        worker: _Worker,
        kind: Literal["failed", "died", "timed out"],
        reason: str,
        details: str = "",
    ) -> Event:
        event = Event("failed", _name(worker.work), Failure(kind, reason, details))
        self._replace(worker)
        return event

    def _replace(self, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.join()
        worker.connection.close()
        worker.process, worker.connection = self._start(worker.resources)
        worker.work, worker.deadline, worker.starts = "starting", math.inf, worker.starts + 1

    def _start(self, resources: Resources) -> tuple[BaseProcess, Connection]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, self._plan, self._out, resources))
        process.start()
        theirs.close()  # so that each side sees the other's end
        return process, ours


def _name(work: RunSpec | str | None) -> str:
    return work.run_id if isinstance(work, RunSpec) else str(work)


def _how_it_ended(code: int | None) -> str:
    if code == -9:
        return "(killed: out of memory?)"
    if code is not None and code < 0:
        return f"({signal.strsignal(-code) or f'signal {-code}'})"
    return f"(status {code})"

"""Worker processes that train: one run at a time each, replaced by nothing when they die."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from ..records import Plan, RunSpec, UserError
from ..records.lock import worker_lock

REPORT_EVERY = 0.2  # seconds between reports of a run's steps


@dataclass(frozen=True, slots=True)
class Event:
    """What a worker says.

    Args:
        kind: "ready" (value: hash of the data), "probed" (its result), "step" (steps taken) or
            "done" (the outcome).
        run_id: of the run, or what else the worker did.
        value: as above.
    """

    kind: Literal["ready", "probed", "step", "done"]
    run_id: str
    value: Any


class Workers:
    """A few processes with the task loaded, each busy with one run or free.

    Leaving the context ends them at once; a run under way is left unfinished.
    """

    def __init__(self, plan: Plan, out: Path, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._work: dict[Connection, RunSpec | str | None] = {}
        self._processes: list[BaseProcess] = []
        threads = max(1, (os.cpu_count() or 1) // count)
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, plan, out, threads), daemon=True)
            process.start()
            theirs.close()  # so that each side sees the other's end
            self._work[ours] = "starting"
            self._processes.append(process)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()

    @property
    def running(self) -> list[RunSpec]:
        """Runs under way."""
        return [work for work in self._work.values() if isinstance(work, RunSpec)]

    @property
    def busy(self) -> int:
        """Workers with work."""
        return len(self._work) - self.free

    @property
    def free(self) -> int:
        """Workers without work."""
        return sum(work is None for work in self._work.values())

    def give(self, work: RunSpec | Literal["probe"]) -> None:
        """Give a run, or the measurement of step times, to a free worker."""
        connection = next(c for c, current in self._work.items() if current is None)
        connection.send(work)
        self._work[connection] = work

    def events(self, timeout: float) -> Iterator[Event]:
        """What the workers have said, waiting at most ``timeout`` seconds for the first word.

        Raises:
            UserError: if a worker died, or could not do its work.
        """
        for ready in multiprocessing.connection.wait(list(self._work), timeout):
            assert isinstance(ready, Connection)
            work = self._work[ready]
            run_id = work.run_id if isinstance(work, RunSpec) else str(work)
            try:
                kind, value = ready.recv()
            except (EOFError, ConnectionError):
                raise UserError(
                    f"the worker of {run_id} was ended from outside (out of memory?); the same "
                    "command goes on from the finished runs"
                ) from None
            if kind == "mistake":
                raise UserError(value)
            if kind == "crash":
                raise RuntimeError(f"run {run_id} failed in its worker:\n{value}")
            if kind != "step":
                self._work[ready] = None
            yield Event(kind, run_id, value)


def _serve(connection: Connection, plan: Plan, out: Path, threads: int) -> None:
    """A worker's life: load the task, then do what is asked for until the pilot is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pilot's; it ends the workers
    try:
        with worker_lock(out):
            _work(connection, plan, out, threads)
    except (EOFError, ConnectionError):
        sys.exit()  # the pilot is gone
    except (UserError, ValueError) as error:
        connection.send(("mistake", str(error)))
    except OSError as error:
        connection.send(("mistake", f"{error.filename or out}: {error.strerror or error}"))
    except Exception:
        connection.send(("crash", traceback.format_exc()))


def _work(connection: Connection, plan: Plan, out: Path, threads: int) -> None:
    import torch

    from .execute import execute, load_task
    from .probe import probe

    torch.set_num_threads(threads)
    task = load_task(plan)
    connection.send(("ready", task.fingerprint))
    while True:
        work = connection.recv()
        if work == "probe":
            connection.send(("probed", probe(plan, task)))
            continue
        connection.send(("done", execute(work, task, out, _Reporter(connection))))


class _Reporter:
    """Sends the steps taken, now and then. Sending fails, and ends the run, with the pilot."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.last = 0.0

    def __call__(self, step: int) -> None:
        now = time.monotonic()
        if now - self.last > REPORT_EVERY:
            self.connection.send(("step", step))
            self.last = now

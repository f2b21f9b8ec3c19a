"""Runs as jobs in a SLURM queue, through submitit: each on whatever machine has room.

A job finds everything in the folder, which all machines share, and outlives the pilot that
submitted it. A pilot that is started again takes up the jobs that are still under way.
"""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...errors import UserError
from ...files import write_text
from ..plan import Plan, RunSpec
from ..records import Failure
from ..records.lock import is_locked
from ..records.run import CHECKPOINTS
from .base import Event
from .resources import cores
from .slurm_queue import Standing
from .slurm_submission import NO_ANSWER, connect, refusal, time_limit
from .worker import answer, outcome_of, run_once

LEEWAY = 10  # minutes more for the queue's own limit, which ends jobs whose pilot is gone
STARTING, PROBING = 60, 240  # minutes for loading the task, and for timing its steps
POLL = 0.2  # seconds
SOON, LAG = 1.0, 15.0  # seconds for the files of a job that failed, or ended well, to appear
HELD = 600.0  # seconds for which a job that is over may still hold its run's folder
AGAIN = 15.0  # seconds between tries to reach a controller that does not answer,
AWAY = 900.0  # and until nobody waits for it any longer


def run_job(plan: Plan, out: Path, work: RunSpec | str) -> tuple[str, Any]:
    """Do the work of a job, on its machine.

    Returns:
        As a worker says it: "ready", "probed", "done", "mistake" or "crash", and the value; or
        "limit" if the queue ends it.
    """
    from submitit.core.utils import UncompletedJobError

    from .runnable import load_runnable

    def do() -> tuple[str, Any]:
        try:
            begun = time.monotonic()
            job = load_runnable(plan, out, cores())
            if work == "starting":
                return "ready", job.fingerprint
            if not isinstance(work, RunSpec):
                load = time.monotonic() - begun  # which every job does for its run
                rows = job.probe().items()
                return "probed", {a: r | {"outside": r.get("outside", 0.0) + load} for a, r in rows}
            return "done", run_once(job, work, out, lambda step: None)
        except UncompletedJobError:  # by the signal that comes shortly before the limit
            return "limit", None

    return answer(do, out, starting=not isinstance(work, RunSpec))


@dataclass(slots=True)
class _Submitted:
    """A piece of work; ``job`` is None while the controller has not taken it."""

    job: Any
    work: RunSpec | str
    seconds: float
    deadline: float = math.inf  # by the monotonic clock, from when it runs
    over: float = math.inf  # since when the queue says so
    cancelled: bool = False  # since it took too long
    waits: str = ""  # what was last said of it
    checkpoint: str = ""  # the newest when it was submitted


@dataclass(slots=True)
class _Outage:
    """A controller that does not answer."""

    since: float = math.inf
    again: float = 0.0
    said: str = ""


class SlurmExecutor:
    """Jobs in a SLURM queue (see :class:`~.base.Executor`).

    Args:
        plan: whose runs they are.
        out: folder of the pilot, shared by all machines.
        count: jobs at a time, waiting or running.
        options: submitit's own (``timeout_min, mem_gb, cpus_per_task, gpus_per_node, ...``) and
            sbatch's (``partition, account, qos, ...``); ``cluster="local"`` makes processes on
            this machine instead, to try it.
    """

    sharing = 1

    def __init__(self, plan: Plan, out: Path, count: int, options: Mapping[str, Any]) -> None:
        self.count = count
        self._plan, self._out = plan, out.resolve()
        self._folder = self._out / "jobs"
        self._options = dict(options)
        self._limit = self._options.get("timeout_min")  # minutes, for all jobs
        self._submitit, self._job_class, self._queue = connect(self._folder, self._options)
        self._jobs: dict[str, _Submitted] = {}
        self._told: set[str] = set()  # ids of jobs whose end has been told
        self._done: list[Event] = []
        self._outage = _Outage()
        self._submit("starting", math.inf)

    def __enter__(self) -> SlurmExecutor:
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave runs to the queue: their outcomes are found when the pilot goes on."""
        for submitted in self._jobs.values():
            if not isinstance(submitted.work, RunSpec) and submitted.job is not None:
                self._queue.cancel(submitted.job)

    @property
    def running(self) -> Sequence[RunSpec]:
        """Runs in the queue."""
        return [s.work for s in self._jobs.values() if isinstance(s.work, RunSpec)]

    @property
    def busy(self) -> int:
        """Jobs in the queue."""
        return len(self._jobs) + len(self._done)

    @property
    def free(self) -> int:
        """Jobs that can be given now."""
        return max(0, self.count - self.busy)

    def give(self, work: RunSpec | Literal["probe"], seconds: float = math.inf) -> None:
        """Submit a job, or take up the one that an earlier pilot has submitted."""
        if not isinstance(work, RunSpec):
            self._submit(work, seconds)
        elif outcome := outcome_of(self._out, work):
            self._done.append(Event("done", work.run_id, outcome))
        elif (job := self._under_way(work)) is not None:
            self._jobs[work.run_id] = _Submitted(job, work, seconds)
        else:
            self._submit(work, seconds)

    def events(self, timeout: float) -> Iterator[Event]:
        """Return new events; wait at most ``timeout`` seconds for the first.

        Raises:
            UserError: if the task cannot be loaded, nothing can be written, or the queue takes no
                job.
        """
        end = time.monotonic() + timeout
        found = self._look()
        while not found and time.monotonic() < end:
            time.sleep(POLL)
            found = self._look()
        yield from found

    def _look(self) -> list[Event]:
        found, self._done = self._done, []
        self._send_again()
        open_ = {n: s for n, s in self._jobs.items() if s.job is not None}
        with contextlib.suppress(OSError):  # makes a network's file system look again
            self._folder.chmod(self._folder.stat().st_mode)
        ended = {n for n, s in open_.items() if s.job.paths.result_pickle.exists()}
        asked = {s.job.job_id: s.job for n, s in open_.items() if n not in ended}
        standings = self._queue.stand(asked)
        for name, submitted in open_.items():
            standing = standings.get(submitted.job.job_id, Standing("COMPLETED"))
            if name in ended or self._is_over(submitted, standing):
                del self._jobs[name]
                self._told.add(submitted.job.job_id)
                found.append(self._result(name, submitted, standing))
                continue
            text = standing.waiting(submitted.job.job_id) or self._held(submitted)
            if text != submitted.waits:
                submitted.waits = text
                found.append(Event("waits", name, text))
            self._end_if_overdue(submitted, standing)
        return found

    def _submit(self, work: RunSpec | str, seconds: float) -> None:
        name = work.run_id if isinstance(work, RunSpec) else work
        self._jobs[name] = _Submitted(None, work, seconds, checkpoint=self._newest(work))
        self._send(name)

    def _send(self, name: str) -> None:
        """Give a job to the queue. While the controller does not answer it is kept for later."""
        submitted, said = self._jobs[name], io.StringIO()
        if time.monotonic() < self._outage.again:
            return
        self._submitit.update_parameters(**time_limit(self._minutes(submitted), self._options))
        try:
            with contextlib.redirect_stderr(said):  # where submitit prints it, too
                job = self._submitit.submit(run_job, self._plan, self._out, submitted.work)
        except (OSError, RuntimeError) as error:
            if isinstance(error, OSError) and error.filename != "sbatch":
                raise
            self._refused(submitted, str(error))
            return
        submitted.job, self._outage = job, _Outage()
        write_text(self._folder / f"{name}.id", f"{job.job_id}\n")

    def _refused(self, submitted: _Submitted, said: str) -> None:
        now = time.monotonic()
        if not NO_ANSWER.search(said) or submitted.work == "starting":
            raise UserError(refusal(said))
        since = min(now, self._outage.since)
        if now - since > AWAY:
            raise UserError(f"{refusal(said)} (tried for {AWAY / 60:.0f} minutes)")
        self._outage = _Outage(since, now + AGAIN, refusal(said))

    def _send_again(self) -> None:
        for name, submitted in self._jobs.items():
            if submitted.job is not None:
                continue
            self._send(name)
            text = "" if submitted.job is not None else f"not submitted yet: {self._outage.said}"
            if text != submitted.waits:
                submitted.waits = text
                self._done.append(Event("waits", name, text))

    def _minutes(self, submitted: _Submitted) -> int:
        """The queue's own limit for a job."""
        if self._limit is not None:
            return int(self._limit)
        if isinstance(submitted.work, RunSpec):
            return math.ceil(submitted.seconds / 60) + LEEWAY
        if submitted.work == "starting":
            return STARTING
        runs = math.ceil(self._plan.running.limit_minutes) * len(self._plan.arms)
        return max(PROBING, runs)

    def _under_way(self, spec: RunSpec) -> Any:
        """The job that an earlier pilot submitted for this run, if it waits or runs."""
        path = self._folder / f"{spec.run_id}.id"
        if not path.exists():
            return None
        job_id = path.read_text(encoding="utf-8").strip()
        if not job_id or job_id in self._told:
            return None
        job = self._job_class(self._folder, job_id)
        if job.paths.result_pickle.exists():
            return None
        held = is_locked(self._out / "runs" / spec.run_id)  # whatever the queue says
        return job if held or not self._queue.stand({job_id: job})[job_id].over else None

    def _is_over(self, submitted: _Submitted, standing: Standing) -> bool:
        """Whether a job without a result is over, so that its run can be tried again."""
        work, now = submitted.work, time.monotonic()
        if not standing.over:
            submitted.over = math.inf
            return False
        submitted.over = min(submitted.over, now)
        if isinstance(work, RunSpec) and is_locked(self._out / "runs" / work.run_id):
            if standing.state == "GONE":  # whatever the queue says: it is being computed
                return False
            return now - submitted.over > HELD
        return now - submitted.over > (LAG if standing.state == "COMPLETED" else SOON)

    def _held(self, submitted: _Submitted) -> str:
        """That a run's folder is held though its job is over, once that lasts."""
        if not isinstance(submitted.work, RunSpec) or time.monotonic() - submitted.over < LAG:
            return ""
        folder = self._out / "runs" / submitted.work.run_id
        return f"job {submitted.job.job_id} is over, but a process still holds {folder}"

    def _end_if_overdue(self, submitted: _Submitted, standing: Standing) -> None:
        """Cancel it, and again if it is not over a minute later."""
        now = time.monotonic()
        if submitted.deadline == math.inf and standing.state == "RUNNING":
            submitted.deadline = now + submitted.seconds
        if now > submitted.deadline and not standing.over:
            submitted.cancelled, submitted.deadline = True, now + 60.0
            self._queue.cancel(submitted.job)

    def _result(self, name: str, submitted: _Submitted, standing: Standing) -> Event:
        work, job = submitted.work, submitted.job
        if isinstance(work, RunSpec) and (outcome := outcome_of(self._out, work)):
            return Event("done", name, outcome)
        kind: str = "limit" if standing.state in ("TIMEOUT", "DEADLINE") else "none"
        value: Any = None
        if job.paths.result_pickle.exists():
            kind, value = _read(job)
        if kind == "mistake":
            raise UserError(value)
        if kind not in ("limit", "none", "crash"):
            return Event("ready" if kind == "ready" else "probed", name, value)
        failure = Failure("failed", *value) if kind == "crash" else None
        if failure is None or submitted.cancelled:
            failure = self._lost(submitted, standing, limited=kind == "limit")
        if work == "starting":
            raise UserError(f"the task cannot be loaded: {failure}; see {job.paths.stderr}")
        return Event("failed", name, failure)

    def _lost(self, submitted: _Submitted, standing: Standing, *, limited: bool) -> Failure:
        """Why there is no result, and whether another try can end otherwise."""
        job = submitted.job
        if submitted.cancelled:
            return Failure("timed out", "it took longer than its time limit", _errors(job))
        if not limited:
            why = {
                "CANCELLED": "was cancelled",
                "GONE": "ended without a result, and neither queue nor accounting knows it",
                "OUT_OF_MEMORY": "ran out of memory: raise --executor-option mem_gb=N",
            }.get(standing.state, f"ended without a result ({standing.state})")
            return Failure("died", f"its job {job.job_id} {why}", _errors(job))
        limit = f"the queue's time limit of {self._minutes(submitted)} minutes"
        reason = f"its job {job.job_id} reached {limit}"
        if self._newest(submitted.work) > submitted.checkpoint:
            text = f"{reason}; it continues from its checkpoint"
            return Failure("timed out", text, _errors(job), "always")
        text = f"{reason}: raise it by --executor-option timeout_min=N"
        return Failure("timed out", text, _errors(job), "never")

    def _newest(self, work: RunSpec | str) -> str:
        """Name of a run's newest checkpoint; names sort by step. Nothing if there is none."""
        if not isinstance(work, RunSpec):
            return ""
        found = (self._out / "runs" / work.run_id / CHECKPOINTS).glob("step-*")
        return max((path.name for path in found if path.suffix != ".tmp"), default="")


def _read(job: Any) -> tuple[str, Any]:
    """A job's answer; an end from outside of its work counts as a crash."""
    try:
        kind, value = job.result()
    except Exception as error:
        return "crash", (f"its job {job.job_id} failed", str(error))
    return str(kind), value


def _errors(job: Any) -> str:
    """The end of what a job said."""
    try:
        return job.paths.stderr.read_text(errors="replace")[-4000:]  # type: ignore[no-any-return]
    except OSError:
        return ""

"""Runs as jobs in a SLURM queue, through submitit: each on whatever machine has room.

A job finds everything in the folder, which all machines share, and outlives the pilot that
submitted it. A pilot that is started again takes up the jobs that are still under way.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..records import Failure, Plan, RunSpec, UserError
from ..records.lock import is_locked
from ..records.run import write_text
from .pool import Event
from .serve import answer, outcome_of, run_once
from .shares import cores

GENERIC = ("timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node")
LEEWAY = 10  # minutes more for the queue's own limit, which ends jobs whose pilot is gone
POLL = 0.2  # seconds


def run_job(plan: Plan, out: Path, work: RunSpec | str) -> tuple[str, Any]:
    """What a job does, on its machine.

    Returns:
        As a worker says it: "ready", "probed", "done", "mistake" or "crash", and the value.
    """
    from .job import load_job

    def do() -> tuple[str, Any]:
        job = load_job(plan, out, cores())
        if work == "starting":
            return "ready", job.fingerprint
        if not isinstance(work, RunSpec):
            return "probed", job.probe()
        return "done", run_once(job, work, out, lambda step: None)

    return answer(do, out, starting=work == "starting")


@dataclass(slots=True)
class _Submitted:
    job: Any
    work: RunSpec | str
    seconds: float
    taken_up: bool = False
    deadline: float = math.inf  # by the monotonic clock, from when it runs


class Slurm:
    """A pool of jobs in the queue (see :class:`~mars_optim.pilot.pool.Pool`).

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
        self._executor, self._job_class = _executor(self._folder, self._options)
        self._jobs: dict[str, _Submitted] = {}
        self._done: list[Event] = []
        self._submit("starting", math.inf)

    def __enter__(self) -> Slurm:
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave runs to the queue: their outcomes are found when the pilot goes on."""
        for submitted in self._jobs.values():
            if not isinstance(submitted.work, RunSpec):
                submitted.job.cancel(check=False)

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
            self._jobs[work.run_id] = _Submitted(job, work, seconds, taken_up=True)
        else:
            self._submit(work, seconds)

    def events(self, timeout: float) -> Iterator[Event]:
        """What has become of the jobs.

        Raises:
            UserError: if the task cannot be loaded, or nothing can be written.
        """
        end = time.monotonic() + timeout
        found = self._look()
        while not found and time.monotonic() < end:
            time.sleep(POLL)
            found = self._look()
        yield from found

    def _look(self) -> list[Event]:
        found, self._done = self._done, []
        for name, submitted in list(self._jobs.items()):
            if self._ended(submitted):
                del self._jobs[name]
                found.append(self._result(name, submitted))
            elif self._overdue(submitted):
                submitted.job.cancel(check=False)
                del self._jobs[name]
                reason = "it took longer than its time limit"
                found.append(Event("failed", name, Failure("timed out", reason)))
        return found

    def _submit(self, work: RunSpec | str, seconds: float) -> None:
        if math.isfinite(seconds) and not {"timeout_min", "time"} & self._options.keys():
            self._executor.update_parameters(timeout_min=math.ceil(seconds / 60) + LEEWAY)
        job = self._executor.submit(run_job, self._plan, self._out, work)
        name = work.run_id if isinstance(work, RunSpec) else work
        self._jobs[name] = _Submitted(job, work, seconds)
        write_text(self._folder / f"{name}.id", f"{job.job_id}\n")

    def _under_way(self, spec: RunSpec) -> Any:
        """The job that an earlier pilot submitted for this run, if it waits or runs."""
        path = self._folder / f"{spec.run_id}.id"
        if not path.exists():
            return None
        job = self._job_class(self._folder, path.read_text(encoding="utf-8").strip())
        return None if self._ended(_Submitted(job, spec, math.inf, taken_up=True)) else job

    def _ended(self, submitted: _Submitted) -> bool:
        work = submitted.work
        if submitted.taken_up and isinstance(work, RunSpec):
            if outcome_of(self._out, work):
                return True
            if is_locked(self._out / "runs" / work.run_id):
                return False  # whatever the queue says: it is being computed
        return bool(submitted.job.done())

    def _overdue(self, submitted: _Submitted) -> bool:
        if submitted.deadline == math.inf and submitted.job.state == "RUNNING":
            submitted.deadline = time.monotonic() + submitted.seconds
        return time.monotonic() > submitted.deadline

    def _result(self, name: str, submitted: _Submitted) -> Event:
        work, job = submitted.work, submitted.job
        if isinstance(work, RunSpec) and (outcome := outcome_of(self._out, work)):
            return Event("done", name, outcome)
        if not job.paths.result_pickle.exists():
            time.sleep(POLL)  # it may be a moment behind
        if not job.paths.result_pickle.exists():
            kind: Literal["died", "timed out"] = "timed out" if job.state == "TIMEOUT" else "died"
            reason = f"its job {job.job_id} ended without a result ({job.state})"
            if work == "starting":
                raise UserError(f"the task could not be loaded: {reason}; see {job.paths.stderr}")
            return Event("failed", name, Failure(kind, reason, job.stderr() or ""))
        kind_of_answer, value = job.result()
        if kind_of_answer == "mistake":
            raise UserError(value)
        if kind_of_answer == "crash":
            if work == "starting":
                raise RuntimeError(f"the task cannot be loaded:\n{value[1]}")
            return Event("failed", name, Failure("failed", *value))
        return Event(kind_of_answer, name, value)


def _executor(folder: Path, options: dict[str, Any]) -> tuple[Any, Any]:
    try:
        import submitit
    except ImportError:
        raise UserError("--engine slurm needs: pip install 'mars-optim[slurm]'") from None
    logging.getLogger("submitit").setLevel(logging.ERROR)
    cluster = options.pop("cluster", "slurm")
    named = {key if key in GENERIC else f"slurm_{key}": value for key, value in options.items()}
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(name="mars", **named)
    except (AssertionError, NameError, RuntimeError, ValueError) as error:
        raise UserError(f"--engine slurm: {error}") from None
    return executor, submitit.LocalJob if cluster == "local" else submitit.SlurmJob


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """``key=value`` pairs; whole numbers become numbers.

    Raises:
        UserError: for one without an equals sign.
    """
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"--engine-option {text!r} must be KEY=VALUE, such as partition=gpu")
        options[key.replace("-", "_")] = int(value) if value.isdecimal() else value
    return options

"""How jobs stand in a SLURM queue, by whichever of its programs knows."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

OVER = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED GONE NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED "
    "TIMEOUT".split()
)
SOONEST, LATEST = 1.0, 15.0  # seconds between questions to the controller
PATIENCE = 60.0  # seconds for one of SLURM's programs to answer

REASONS = {  # why a job may wait for ever, and the way out
    "PartitionTimeLimit": "lower --executor-option timeout_min",
    "PartitionNodeLimit": "lower --executor-option nodes",
    "PartitionConfig": "the partition has no such machine: lower --executor-option cpus_per_task, "
    "mem_gb or gpus_per_node",
    "BadConstraints": "no machine fits: change --executor-option",
    "JobHeldUser": "scontrol release",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """How a job stands.

    Args:
        state: SLURM's word; "GONE" if neither the queue nor the accounting knows the job, "UNKNOWN"
            if nobody answers.
        reason: why it waits.
    """

    state: str
    reason: str = ""

    @property
    def over(self) -> bool:
        """Whether it will not run any more."""
        return self.state in OVER

    def waiting(self, job_id: str) -> str:
        """Why there is nothing to see of the job yet; nothing if it runs or has run."""
        if self.state == "UNKNOWN":
            return f"job {job_id}: SLURM's controller does not answer (scontrol ping)"
        if self.state not in ("PENDING", "CONFIGURING", "REQUEUED"):
            return ""
        hint = f"; {REASONS[self.reason]}" if self.reason in REASONS else ""
        if self.reason == "None":  # none yet: it has just come
            return ""
        reason = f" ({self.reason}{hint})" if self.reason else ""
        return f"job {job_id} waits in the queue{reason}"


class Queue(Protocol):
    """Knows how jobs stand."""

    def stand(self, jobs: Mapping[str, Any]) -> dict[str, Standing]:
        """How jobs stand, by id; the values are submitit's own."""
        ...

    def cancel(self, job: Any) -> None:
        """End a job, as soon as may be."""
        ...


class LocalQueue:
    """The queue of submitit's processes on this machine."""

    def stand(self, jobs: Mapping[str, Any]) -> dict[str, Standing]:
        """As the processes are."""
        states = {"RUNNING": "RUNNING", "NO PROCESS AND NO RESULT": "GONE"}
        return {i: Standing(states.get(job.state, "FAILED")) for i, job in jobs.items()}

    def cancel(self, job: Any) -> None:
        """As its supervisor does it."""
        job.cancel()


class SlurmQueue:
    """The queue of a SLURM cluster, with or without accounting, asked for all jobs at once."""

    def __init__(self) -> None:
        self._known: dict[str, Standing] = {}
        self._asked = self._changed = -LATEST

    def stand(self, jobs: Mapping[str, Any]) -> dict[str, Standing]:
        """As last heard, or as heard now: at first every second, later every 15."""
        now = time.monotonic()
        asked = {i for i in jobs if not self._known.get(i, Standing("")).over}
        new = not asked <= self._known.keys()
        self._changed = now if new else self._changed
        every = min(LATEST, max(SOONEST, (now - self._changed) / 4))
        if asked and (new or now - self._asked > every):
            found = ask(asked)
            self._asked = time.monotonic()
            if any(found[i] != self._known.get(i) for i in asked):
                self._changed = self._asked
            self._known |= found
        return {i: self._known[i] for i in jobs}

    def cancel(self, job: Any) -> None:
        """Cancel a job; the caller tries again where that fails now."""
        _said(["scancel", job.job_id])


def ask(ids: Collection[str]) -> dict[str, Standing]:
    """How jobs stand: squeue is asked first, scontrol where it fails, sacct for what is forgotten.

    A job that the controller does not know, nor the accounting, is over; while the controller does
    not answer, a job that nobody knows may still run.
    """
    found = _by_squeue(ids)
    answered = found is not None
    if found is None:
        found, answered = _by_scontrol(ids)
    if left := [i for i in ids if i not in found]:
        found |= {i: s for i, s in _by_sacct(left).items() if i in left}
    nobody = Standing("GONE" if answered else "UNKNOWN")
    return {i: found.get(i, nobody) for i in ids}


def _by_squeue(ids: Collection[str]) -> dict[str, Standing] | None:
    """None if it does not answer."""
    words = ["squeue", "--all", "--states=all", "--noheader", "--format=%i|%T|%r"]
    status, output, error = _said([*words, f"--jobs={','.join(sorted(ids))}"])
    if status and "Invalid job id" in error:  # which is how it says that it knows none of them
        return {}
    return None if status else _read(output)


def _by_scontrol(ids: Collection[str]) -> tuple[dict[str, Standing], bool]:
    found, answered = {}, True
    for job_id in ids:
        status, output, error = _said(["scontrol", "--oneliner", "show", "job", job_id])
        words = dict(word.split("=", 1) for word in output.split() if "=" in word)
        if not status and "JobState" in words:
            found[job_id] = Standing(words["JobState"], words.get("Reason", ""))
        elif "Invalid job id" not in error:
            answered = False
            break  # each question may take many seconds
    return found, answered


def _by_sacct(ids: Collection[str]) -> dict[str, Standing]:
    words = ["sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State"]
    status, output, _ = _said([*words, f"--jobs={','.join(sorted(ids))}"])
    return {} if status else _read(output)  # many clusters have none


def _read(output: str) -> dict[str, Standing]:
    """Lines of ID|STATE|REASON; a state may be followed by whose it was (CANCELLED by 1000)."""
    found = {}
    for line in output.splitlines():
        job_id, _, rest = line.partition("|")
        state, _, reason = rest.partition("|")
        if state:
            found[job_id.strip()] = Standing(state.split()[0].rstrip("+"), reason.strip())
    return found


def _said(words: list[str]) -> tuple[int, str, str]:
    """Exit status, output and errors of one of SLURM's programs; 127 if it is not there."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", check=False, timeout=PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, "", str(error)
    return done.returncode, done.stdout, done.stderr

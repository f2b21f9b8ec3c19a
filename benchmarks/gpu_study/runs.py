"""One run by the package's own training loop, within a time limit, as a row of plain data."""

from __future__ import annotations

import gc
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mars_optim.experiment.plan import ExecutionOptions, RunSpec
from mars_optim.experiment.records import Outcome, RunWriter
from mars_optim.experiment.tasks import Task
from mars_optim.experiment.training import train

Row = dict[str, Any]


class TimeUp(KeyboardInterrupt):
    """The time limit, told to the loop as it knows it: it leaves a checkpoint and ends."""


@dataclass(frozen=True, slots=True)
class Limit:
    """When a call has to end.

    Args:
        end: by the clock.
        clock: in seconds.
    """

    end: float
    clock: Callable[[], float] = time.monotonic

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - self.clock()

    def on_step(self, step: int) -> None:
        """Raise :class:`TimeUp` once it is time."""
        if self.left <= 0:
            raise TimeUp(step)


def carry_out(
    spec: RunSpec, task: Task, execution: ExecutionOptions, scratch: Path, limit: Limit
) -> Row:
    """Train ``spec`` from its first step, or from the checkpoint that an earlier call left.

    Args:
        spec: of the run.
        task: to train.
        execution: how.
        scratch: folder for the checkpoint of a run that is cut; one that ends removes its own.
        limit: of the call.

    Returns:
        Status, final loss, curves and cost.

    Raises:
        TimeUp: when the run was cut.
    """
    gc.collect()  # the last run's tensors
    reset_peak_memory()
    writer = RunWriter(scratch, spec, {}, silent=True)
    outcome = train(spec, task, writer, limit.on_step, execution)
    shutil.rmtree(writer.path, ignore_errors=True)
    return row_of(outcome, writer.rows)


def row_of(outcome: Outcome, rows: list[Row]) -> Row:
    """A finished run: its last scores, its curves at about fifty points, and its cost."""
    trained = [row for row in rows if "loss" in row]
    scored = [row for row in rows if "valid_loss" in row]
    speeds = [row["tokens_per_second"] for row in trained]
    return {
        "status": outcome.status,
        "reason": outcome.reason,
        "final_loss": outcome.final_loss,
        "bits_per_byte": scored[-1].get("bits_per_byte") if scored else None,
        "steps": outcome.steps,
        "tokens": outcome.tokens,
        "seconds": outcome.seconds,
        "tokens_per_second": statistics.median(speeds) if speeds else None,
        "peak_memory_bytes": peak_memory(),
        "state_bytes": outcome.state_bytes,
        "parameters": outcome.parameters,
        "valid": [{k: row[k] for k in ("step", "valid_loss")} for row in scored],
        "train": [{k: row[k] for k in ("step", "loss", "grad_norm")} for row in trained],
    }


def failed_row(error: Exception) -> Row:
    """A run that came to no outcome, with the reason in one line."""
    return {"status": "failed", "reason": reason(error), "final_loss": None}


def reason(error: Exception) -> str:
    """An exception in one short line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def device_answers(device: torch.device) -> bool:
    """Whether the device still computes: after some errors a process's CUDA is lost."""
    try:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return float(torch.ones(2, device=device).sum()) == 2.0
    except Exception:
        return False


def reset_peak_memory() -> None:
    """Begin to look for the most memory in use."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> int | None:
    """Most bytes in tensors on the GPU since then, text and model included; None without one."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None

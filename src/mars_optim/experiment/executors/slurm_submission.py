"""How jobs are given to a queue: options of the command line, and what sbatch's errors mean."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import UserError
from .slurm_queue import LocalQueue, Queue, SlurmQueue

GENERIC = ("timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node")
NO_ANSWER = re.compile(
    r"unable to contact|connect failure|connection refused|timed out|not responding|"
    r"temporarily unavailable",
    re.IGNORECASE,
)
HINTS = {  # what sbatch says, and the option that mends it; the first that fits
    r"policy|submit limit|maxsubmit": "ask for fewer jobs at a time by --workers, or for less",
    r"generic resource|gres": "change --executor-option gpus_per_node or gres (sinfo -o '%P %G')",
    r"account": "change --executor-option account=NAME (sacctmgr show associations)",
    r"partition": "change --executor-option partition=NAME (sinfo lists them)",
    r"qos": "change --executor-option qos=NAME (sacctmgr show qos)",
    r"time limit": "lower --executor-option timeout_min=N (sinfo -o '%P %l')",
    r"node name": "change --executor-option nodelist=NAME (sinfo -N lists them)",
    r"feature": "change --executor-option constraint=NAME (sinfo -o '%P %f')",
    r"memory|cpu count|node count|node configuration": (
        "ask for less by --executor-option mem_gb, cpus_per_task, gpus_per_node or nodes"
    ),
    r"munge|authentication|credential": "munged must run on this machine: ask its operators",
}


def connect(folder: Path, options: dict[str, Any]) -> tuple[Any, Any, Queue]:
    """submitit's executor and class of jobs, and the queue that they stand in.

    Raises:
        UserError: without submitit or SLURM, or for an option that there is not.
    """
    try:
        import submitit
    except ImportError:
        raise UserError("--executor slurm needs: pip install 'mars-optim[slurm]'") from None
    logging.getLogger("submitit").setLevel(logging.ERROR)
    cluster = options.get("cluster", "slurm")
    named = {
        key if key in GENERIC else f"slurm_{key}": value
        for key, value in options.items()
        if key != "cluster"
    }
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(name="mars", **named)
    except (AssertionError, NameError, RuntimeError, ValueError) as error:
        raise UserError(f"--executor slurm: {error}") from None
    if cluster == "local":
        return executor, submitit.LocalJob, LocalQueue()
    return executor, submitit.SlurmJob, SlurmQueue()


def time_limit(minutes: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """submitit's parameters for a limit: jobs are warned 90 seconds before it, or a tenth of it.

    A job that is warned before it listens is ended by that.
    """
    parameters = {"timeout_min": minutes}
    if "signal_delay_s" not in options and options.get("cluster") != "local":
        parameters["slurm_signal_delay_s"] = min(90, 6 * minutes)
    return parameters


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """``key=value`` pairs; whole numbers become numbers, names such as ``account=00123`` do not.

    Raises:
        UserError: for one without an equals sign.
    """
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"--executor-option {text!r} must be KEY=VALUE, such as partition=gpu")
        key = key.replace("-", "_")
        number = value.isdecimal() and (key in GENERIC or str(int(value)) == value)
        options[key] = int(value) if number else value
    if "time" in options:  # sbatch's name for it
        options["timeout_min"] = options.pop("time")
    limit = options.get("timeout_min", 1)
    try:
        whole = minutes(limit) if isinstance(limit, str) else limit
    except ValueError:
        whole = 0
    if whole < 1:
        raise UserError(
            f"--executor-option timeout_min={limit} must be minutes, at least 1, or a time such as "
            "2:30:00 (hours) or 1-12 (days)"
        )
    if "timeout_min" in options:
        options["timeout_min"] = whole
    return options


def refusal(said: str) -> str:
    """One line for what sbatch said when it took no job, with what to change."""
    lines = [line.removeprefix("sbatch: error:").strip() for line in said.splitlines()]
    text = "; ".join(line for line in lines if line) or "it gave no reason"
    if NO_ANSWER.search(text):
        return (
            f"SLURM's controller does not answer ({text}): see scontrol ping; once it "
            "answers, run the same command again to continue"
        )
    hints = (hint for pattern, hint in HINTS.items() if re.search(pattern, text, re.IGNORECASE))
    return f"sbatch takes no job ({text}): {next(hints, 'change --executor-option KEY=VALUE')}"


def minutes(text: str) -> int:
    """A time limit as SLURM writes it: minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S.

    Raises:
        ValueError: for anything else.
    """
    days, dash, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if not 1 <= len(parts) <= 3 or min(parts) < 0:
        raise ValueError(text)
    if dash:
        hours, minute, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minute, seconds = parts
    else:
        hours, (minute, seconds) = 0, [*parts, 0][:2]
    whole = ((int(days) if dash else 0) * 24 + hours) * 60 + minute
    return whole + (seconds > 0)

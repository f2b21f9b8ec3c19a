"""``mars`` with a job that takes milliseconds, needs no torch and fails as a script says.

    python pretended_job.py SCRIPT pilot --out ... (as the command mars)

SCRIPT is a JSON file: a list of ``{"run": part of a run's id, "step": when, "fault": what,
"times": how often}``. Worker processes import this file again, so they pretend too.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mars_optim.experiment.executors import runnable
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.records import Outcome, RunWriter
from mars_optim.experiment.records.run import ended_with_trunk

STEP_SECONDS = float(os.environ.get("PRETENDED_STEP_SECONDS", "0.002"))


class PretendedJob:
    """A loss that is a function of the spec."""

    fingerprint = "pretended"

    def __init__(self, plan: Plan, out: Path) -> None:
        self.plan, self.out = plan, out

    def probe(self) -> dict[str, Any]:
        ratios = {"ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0}
        times = {"seconds": 0.001, "state_bytes": 8, "rounds": 1}
        return dict.fromkeys(self.plan.arms, ratios | times)

    def run(self, spec: RunSpec, on_step: Callable[[int], None]) -> Outcome:
        with (self.out / "computed.txt").open("a") as file:
            file.write(spec.run_id + "\n")
        writer = RunWriter(self.out / "runs", spec, ENVIRONMENT)
        try:
            assert ended_with_trunk(writer, spec) is None  # it refuses one that has not finished
            return self._steps(spec, writer, on_step)
        finally:
            writer.close()

    def _steps(self, spec: RunSpec, writer: RunWriter, on_step: Callable[[int], None]) -> Outcome:
        for step in range(1, spec.steps + 1):
            time.sleep(STEP_SECONDS)
            for line in script():
                if line["run"] in spec.run_id and line["step"] == step and claim(line):
                    FAULTS[line["fault"]]()
            writer.row(step=step, tokens=step, seconds=float(step), loss=loss(spec) + 1 / step)
            on_step(step)
        writer.row(step=step, tokens=step, seconds=float(step), valid_loss=loss(spec))
        outcome = Outcome(
            status="finished",
            final_loss=loss(spec),
            steps=step,
            tokens=step,
            seconds=float(step),
            parameters=1,
            state_bytes=8,
        )
        writer.finish(outcome)
        return outcome


def loss(spec: RunSpec) -> float:
    doublings = math.log2(spec.lr / spec.arm.lr)
    gain = {"mars-adamw": 0.2, "nadamw": 0.1}.get(spec.arm_name, 0.0)
    return 3.0 + 0.1 * doublings**2 + 0.01 * spec.seed - gain - 0.5 * math.log(spec.steps)


def script() -> list[dict[str, Any]]:
    return json.loads(SCRIPT.read_text()) if SCRIPT.exists() else []  # type: ignore[no-any-return]


def claim(line: dict[str, Any]) -> bool:
    """Whether this fault is still to happen; one of its times is used up."""
    for i in range(line.get("times", 1)):
        key = f"{line['fault']}-{line['run']}-{i}"
        try:
            os.close(os.open(SCRIPT.with_name(f"done-{key}"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        return True
    return False


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    while True:
        time.sleep(1000)


def fail() -> None:
    raise RuntimeError("the loss [bold] is\nout of bounds")


def reach_the_limit() -> None:
    """Do what a queue does shortly before its time is up; submitit listens."""
    os.kill(os.getpid(), signal.SIGUSR2)
    time.sleep(1000)


def exhaust_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28))
    held = [bytearray(2**20) for _ in range(4096)]
    del held


def fill_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "rows.jsonl")


def lie_about_the_time() -> None:
    """The wall clock jumps, there and back."""
    jumps = iter([1e9, -1e9, 3e8] * 1000)
    time.time = lambda: next(jumps)


def tables(out: Path, console: object, lang: str) -> None:
    """In place of a report, whose figures take seconds: all numbers that it would show."""
    analysis = analyse(out)
    fields = {f.name: repr(getattr(analysis, f.name)) for f in dataclasses.fields(analysis)}
    for name in ("plan", "environment", "verdict"):
        del fields[name]
    verdict = dataclasses.asdict(analysis.verdict)
    write_json(out / "tables.json", {"tables": fields, "verdict": verdict})


ALL = (die, hang, fail, reach_the_limit, exhaust_memory, fill_disk, lie_about_the_time)
FAULTS = {f.__name__: f for f in ALL}
ENVIRONMENT = {"python": "3", "torch": "0", "system": "none", "device": "none"}
SCRIPT = Path(os.environ.get("PRETENDED_SCRIPT", "no script"))


def take_over() -> None:
    """From now on this process pretends; not on import, for tests import this too."""
    runnable.load_runnable = lambda plan, out, threads: PretendedJob(plan, out)
    if "clock" in os.environ.get("PRETENDED_FAULTS", ""):
        lie_about_the_time()


if __name__ in ("__main__", "__mp_main__"):  # the pilot, and its workers
    take_over()

if __name__ == "__main__":
    import mars_optim.cli.pilot as command
    from mars_optim.cli import main
    from mars_optim.experiment.analysis import analyse
    from mars_optim.files import write_json

    command.write = tables
    sys.exit(main(sys.argv[1:]))

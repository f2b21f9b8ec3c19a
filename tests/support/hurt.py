"""A pilot that is run, killed, starved and lied to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mars_optim.experiment.analysis import Finding
from mars_optim.experiment.report.messages import Messages

OPTIONS = {
    "training.steps": "10",
    "comparison.seeds": "[1, 2]",
    "comparison.ladder": "[0.5, 0.75, 1.5]",
    "comparison.others": "always",
    "decision.looks": "once",
    "tuning.trials": "2",
    "tuning.max_trials": "3",
}

# jobs of a queue are processes of their own, which pretend by tests/support/site
PATH = os.pathsep.join([str(Path(__file__).with_name("site")), os.environ.get("PYTHONPATH", "")])


class Pilot:
    """The command ``mars pilot`` with a pretended job, on one folder."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.script = out.parent / "script.json"
        self.processes: list[subprocess.Popen[str]] = []

    def faults(self, *lines: dict[str, Any]) -> None:
        """Plan the faults: in which run, at which step."""
        self.script.write_text(json.dumps(lines))

    def start(
        self,
        *arguments: str,
        workers: int = 1,
        step: float = 0.0,
        faults: str = "",
        **options: str,
    ) -> subprocess.Popen[str]:
        """Start the command; ``running__limit_minutes="1"`` sets an option of the plan.

        Args:
            arguments: further ones of the command.
            workers: runs at a time.
            step: seconds that a step takes.
            faults: of every process ("clock").
            options: of the plan.
        """
        pretended = {"SCRIPT": str(self.script), "STEP_SECONDS": str(step), "FAULTS": faults}
        environment = {f"PRETENDED_{key}": value for key, value in pretended.items()}
        chosen = OPTIONS | {key.replace("__", "."): value for key, value in options.items()}
        sets = [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]
        program = [sys.executable, str(Path(__file__).with_name("pretended_job.py")), "pilot"]
        process = subprocess.Popen(
            [*program, "--out", str(self.out), "--workers", str(workers), *sets, *arguments],
            env=os.environ | environment | {"PYTHONPATH": PATH},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        process = self.start(*arguments, **options)
        stdout, stderr = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def kill(self, process: subprocess.Popen[str]) -> None:
        """End it, and do not wait for those who have inherited its output."""
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()

    def end(self) -> None:
        for process in self.processes:
            self.kill(process)

    def finished(self) -> dict[str, Path]:
        manifests = (self.out / "runs").glob("*/manifest.json")
        return {m.parent.name: m for m in manifests if json.loads(m.read_text())["outcome"]}

    def losses(self) -> dict[str, float]:
        return {
            run: json.loads(path.read_text())["outcome"]["final_loss"]
            for run, path in self.finished().items()
        }

    def computed(self) -> list[str]:
        """Ids of runs, as often as they were begun."""
        path = self.out / "computed.txt"
        return path.read_text().splitlines() if path.exists() else []

    def tables(self) -> dict[str, str]:
        """All numbers of the analysis."""
        return dict(json.loads((self.out / "tables.json").read_text())["tables"])

    def reasons(self) -> str:
        """Reasons of the verdict, beside its sentence."""
        said = json.loads((self.out / "tables.json").read_text())["verdict"]["reasons"]
        return reasons_of(Finding(**reason) for reason in said)


def reasons_of(findings: Iterable[Finding]) -> str:
    """Reasons in the English report, a line each."""
    return "\n".join(map(Messages().finding, findings))


def children_of(pid: int) -> list[int]:
    """Ids of the processes that ``pid`` has started."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is more than an entry in a table."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().split()[2] != "Z"


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Fail if it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)

#!/usr/bin/env python3
"""Stands in for SLURM's programs, by the name that it is called by: as 22.05 without accounting.

STAND_IN is its folder: ``down`` there and the controller does not answer; ``hold`` and jobs wait;
``forgets`` and ended jobs are not known; ``refuse`` holds what sbatch says instead of taking a job.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(os.environ["STAND_IN"])
AWAY = "Unable to contact slurm controller (connect failure)"


def sbatch(script: str) -> None:
    if (HERE / "refuse").exists():
        sys.exit((HERE / "refuse").read_text())
    job = str(len(list(HERE.glob("*.sh"))) + 1)
    path = HERE / f"{job}.sh"
    path.write_text(Path(script).read_text())
    ids = dict(JOB_ID=job, NTASKS="1", JOB_NUM_NODES="1", NODEID="0", PROCID="0", LOCALID="0")
    subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("stand_in.py")), "watch", job],
        env=os.environ | {f"SLURM_{key}": value for key, value in ids.items()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    print(f"Submitted batch job {job}")


def watch(job: str) -> None:
    """A job's life: it is this process's group."""
    import time

    (HERE / f"{job}.pid").write_text(str(os.getpid()))
    while (HERE / "hold").exists():
        time.sleep(0.05)
    (HERE / f"{job}.state").write_text("RUNNING")
    status = subprocess.call(["bash", str(HERE / f"{job}.sh")])
    (HERE / f"{job}.state").write_text("FAILED" if status else "COMPLETED")


def squeue(jobs: list[str]) -> None:
    lines = []
    for job in jobs:
        state = HERE / f"{job}.state"
        word = state.read_text() if state.exists() else "PENDING"
        known = (HERE / f"{job}.sh").exists() and not (HERE / f"{job}.forgotten").exists()
        ended = word not in ("RUNNING", "PENDING")
        if known and not (ended and (HERE / "forgets").exists()):
            lines.append(f"{job}|{word}|{'Resources' if word == 'PENDING' else 'None'}")
    if not lines and len(jobs) == 1:
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    print("\n".join(lines))


def scancel(job: str) -> None:
    os.killpg(int((HERE / f"{job}.pid").read_text()), signal.SIGKILL)
    (HERE / f"{job}.state").write_text("CANCELLED")


def srun(words: list[str]) -> None:
    while words[0].startswith("--"):
        del words[: 2 if words[0] in ("--output", "--error") else 1]
    os.execvp(words[0], words)


if __name__ == "__main__":
    name, words = Path(sys.argv[0]).name, sys.argv[1:]
    if name == "stand_in.py" and words[0] == "watch":
        watch(words[1])
    elif name == "srun":
        srun(words)
    elif name == "sacct":
        sys.exit("Slurm accounting storage is disabled")
    elif (HERE / "down").exists():
        sys.exit(f"{name}: error: {AWAY}")
    elif name == "sbatch":
        sbatch(words[0])
    elif name == "squeue":
        squeue(words[-1].partition("=")[2].split(","))
    elif name == "scancel":
        scancel(words[0])
    else:
        sys.exit(f"{name} is not there")

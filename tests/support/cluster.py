"""A SLURM cluster of one node on loopback, in a folder of its own; what it starts it ends."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
SBIN = "/usr/sbin:/sbin"
CONF = """
ClusterName=mars
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={controller}
SlurmdPort={daemon}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
ReturnToService=2
SchedulerParameters=sched_interval=2
MinJobAge={job_age}
KillWait=3
OverTimeLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """munged, slurmctld and slurmd.

    Args:
        folder: for their files; short, since a socket's path must be.
        job_age: seconds for which the controller knows a job that has ended.
    """

    def __init__(self, folder: Path, job_age: int = 10) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{os.environ['PATH']}:{SBIN}",
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        folder.chmod(0o755)  # munge wants it so
        (folder / "state").mkdir()
        (folder / "spool").mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        conf = CONF.format(
            host=platform.node().partition(".")[0],
            user=os.environ.get("USER") or _user(),
            folder=folder,
            controller=_free_port(),
            daemon=_free_port(),
            cpus=os.cpu_count() or 1,
            memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**21,
            job_age=job_age,
        )
        (folder / "slurm.conf").write_text(conf)

    def __enter__(self) -> Cluster:
        try:
            self._munged()
            self.start_controller()
            self._start("slurmd", "-D", "-N", platform.node().partition(".")[0])
            self.wait_for(lambda: "idle" in self.ask("sinfo", "--noheader", "-o", "%T"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        if "slurmctld" in self._processes:
            self.ask("scancel", "--state=PENDING,RUNNING", f"--user={_user()}")
            self.ask("scancel", "--signal=KILL", f"--user={_user()}")
            self._settle()
        for name in ("slurmd", "slurmctld", "munged"):
            self._stop(name)
        for pid in self._left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _settle(self) -> None:
        """Give jobs a moment to end."""
        deadline = time.monotonic() + 15
        while self.ask("squeue", "--noheader") and time.monotonic() < deadline:
            time.sleep(0.5)

    def _left(self) -> list[int]:
        """Processes that were started under this cluster and are still there: jobs, drivers."""
        mark, found = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode(), []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return [pid for pid in found if pid != os.getpid()]

    def start_controller(self) -> None:
        """It takes up the state that an earlier one has left."""
        self._start("slurmctld", "-D")
        self.wait_for(lambda: "is UP" in self.ask("scontrol", "ping"))

    def stop_controller(self) -> None:
        self._stop("slurmctld")

    def ask(self, *words: str) -> str:
        """Output of one of SLURM's commands; nothing if it fails."""
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )
        return done.stdout.strip()

    def jobs(self) -> list[str]:
        """Ids of jobs that wait or run."""
        return self.ask("squeue", "--noheader", "-o", "%i").split()

    def wait_for(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        """Fail, with the logs, if it does not come true."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"it did not happen; {self._logs()}")
            time.sleep(0.2)

    def _munged(self) -> None:
        names = {"key-file": "munge.key", "socket": "munge.socket", "seed-file": "munge.seed"}
        names |= {"pid-file": "munged.pid", "log-file": "munged.log"}
        files = [f"--{key}={self.folder / name}" for key, name in names.items()]
        self._start("munged", "--foreground", "--force", *files)
        self.wait_for((self.folder / "munge.socket").exists)

    def _start(self, program: str, *words: str) -> None:
        path = shutil.which(program, path=self.environment["PATH"])
        assert path, f"{program} is not installed"
        with (self.folder / f"{program}.out").open("ab") as output:
            self._processes[program] = subprocess.Popen(
                [path, *words],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _stop(self, program: str) -> None:
        process = self._processes.pop(program, None)
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _logs(self) -> str:
        texts = []
        for path in sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")]):
            lines = path.read_text(errors="replace").splitlines()[-8:]
            texts += [f"{path.name}: {line}" for line in lines]
        return "\n".join(texts)


def missing_programs() -> list[str]:
    """Programs of SLURM's that are not installed."""
    path = f"{os.environ['PATH']}:{SBIN}"
    return [program for program in PROGRAMS if not shutil.which(program, path=path)]


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])

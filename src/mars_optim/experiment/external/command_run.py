"""One run of the user's own command, from its first step to its last."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...files import no_link
from ..plan import RunSpec
from ..plan.command import fill_command, fill_settings, fixed_words, split
from ..plan.task import CommandPlan
from ..records import Outcome, RunWriter, read_run
from ..records.run import branch_point, ended_with_trunk
from .metric_files import Tail
from .pace import Pace
from .recorder import Columns, Recorder

POLL = 0.2  # seconds between looks at the files
OFTEN = 0.02  # likewise, in a short run that is to tell the time of a step
TOKENS_APART = 0.2  # of a step of a branch and of its trunk, relative
LAST_SIGNAL = 64  # on Linux
LARGEST = 16 * 2**20  # bytes of a file that counts as the command's code


@dataclass(frozen=True, slots=True)
class Command:
    """The command of a plan, ready to be run.

    Args:
        task: of the plan.
        out: folder of the pilot.
        threads: for each run, where the user has not set OMP_NUM_THREADS.
    """

    task: CommandPlan
    out: Path
    threads: int

    @property
    def fingerprint(self) -> str:
        """Hash of the command and of the files in its folder that it names."""
        digest = sha256(self.task.command.encode())
        for word in fixed_words(self.task.command):
            path = Path(self.task.folder) / word
            if path.is_file() and path.stat().st_size <= LARGEST:
                digest.update(f"\0{word}\0".encode() + path.read_bytes())
        return digest.hexdigest()

    def check(self) -> None:
        """See that there is something to run.

        Raises:
            UserError: naming what is not there.
        """
        folder = Path(self.task.folder)
        if not folder.is_dir():
            raise UserError(f"task.folder = {str(folder)!r} is not a folder")
        fixed, program = fixed_words(self.task.command), split(self.task.command, "task.command")[0]
        own = "/" in program and os.access(folder / program, os.X_OK)
        if program in fixed and not own and not shutil.which(program):
            raise UserError(
                f"task.command: {program!r} is neither on the PATH nor a program in {folder}: "
                "give its path; {python} stands for the Python that runs mars"
            )
        for word in fixed:
            if word.endswith(".py") and not (folder / word).is_file():
                raise UserError(f"task.command: {folder / word} does not exist")

    def run(
        self,
        spec: RunSpec,
        writer: RunWriter,
        on_step: Callable[[int], None] = lambda step: None,
        poll: float = POLL,
    ) -> tuple[Outcome, bool]:
        """Run ``spec`` and record it.

        What the command writes stays in ``job/`` below the run's folder, its output in
        ``log.txt``.

        Args:
            spec: what to run.
            writer: takes the rows.
            on_step: called with the number of steps taken, a few times a second.
            poll: seconds between looks at the files.

        Returns:
            The outcome, not yet written: a loss that is not finite ends the run as diverged. And
            whether its seconds are those of its steps alone: the command told them, or they could
            be seen by when its rows came. Else they are the whole run's.

        Raises:
            UserError: if the command fails, or says too little of how it went.
        """
        if ended := ended_with_trunk(writer, spec):
            return ended, True
        job, log = writer.path / "job", writer.path / "log.txt"
        shutil.rmtree(job, ignore_errors=True)  # of an interrupted try
        job.mkdir()
        columns = columns_of(self.task)
        recorder = Recorder(columns, spec.steps, writer.row, live=True)
        pace = Pace(columns)
        tail = Tail(job, self.task.metrics, columns.losses)
        start = time.monotonic()
        _take_rows(writer, spec)
        with self._started(self._words(spec, job), log) as process:
            status = _follow(process, tail, recorder, pace, on_step, poll)
        recorder.finish()
        if not recorder.broken:
            self._check_end(spec, recorder, status, log)
        whole, step = time.monotonic() - start, pace.step_seconds(poll)
        taken = max(0, recorder.step - spec.start)
        outcome = recorder.outcome(whole if step is None else min(whole, step * taken))
        _check_tokens(writer, spec, outcome)
        return outcome, step is not None or recorder.tells_seconds

    def _words(self, spec: RunSpec, job: Path) -> list[str]:
        decay = 0 if spec.branches else spec.steps - spec.training.decay_start(spec.steps)
        from_ = str(branch_point(job.resolve().parents[1], spec)) if spec.trunk else ""
        settings = spec.arm.settings
        values = {
            **{name: repr(value) for name, value in settings.items()},
            "init_from": from_,
            "decay_steps": str(decay),
            "save_steps": ",".join(map(str, spec.branches)),
            "optimizer": spec.arm_name,
            "lr": repr(spec.lr),
            "seed": str(spec.seed),
            "steps": str(spec.steps),
            "run_dir": str(job.resolve()),
            "arm_args": fill_settings(spec.arm.arguments, settings),
            "python": sys.executable,
        }
        return fill_command(self.task.command, values)

    @contextmanager
    def _started(self, words: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """The command under its supervisor; leaving the context ends both."""
        supervisor = [sys.executable, "-P", "-m", "mars_optim.experiment.external.supervise"]
        arguments = [str(self.out.resolve()), str(Path(self.task.folder).resolve()), *words]
        environment = {"OMP_NUM_THREADS": str(self.threads), "PYTHONUNBUFFERED": "1", **os.environ}
        with open(log, "wb", opener=no_link) as output:
            process = subprocess.Popen(
                [*supervisor, *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C is the pilot's
            )
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()

    def _check_end(self, spec: RunSpec, recorder: Recorder, status: int, log: Path) -> None:
        if status:
            raise UserError(
                f"{_whose(spec)} ended {_status(status)}: {last_line(log)} ({log}){_way(spec)}"
            )
        for point in spec.branches:
            if not (log.parent / "job" / f"step-{point}").exists():
                raise UserError(
                    f"{_whose(spec)} left no step-{point} in {{run_dir}}: at each step of "
                    f"{{save_steps}} it must save its state there, as step-N ({log})"
                )
        if name := recorder.uncounted:
            way = " and task.tokens_per_step" if name == "tokens" else ""
            raise UserError(
                f"{_whose(spec)}: {recorder.told_apart(name)}. Write the sum so far, or set "
                f'task.{name}_key = ""{way} ({log})'
            )
        if recorder.no_tokens and (recorder.trained or spec.purpose != "probe"):
            raise UserError(
                f"{_whose(spec)}: {recorder.no_tokens}. Name that column in task.tokens_key, or "
                f'set task.tokens_key = "" and task.tokens_per_step ({log}){_way(spec)}'
            )
        where = f"{self.task.metrics} in {{run_dir}}"
        note = f"; {recorder.unclear}" if recorder.unclear else ""
        for metric in self.task.score_keys:
            if why := recorder.no_result(metric, spec.steps):
                raise UserError(
                    f"{_whose(spec)} left no {metric!r} after its last step in {where}: {why}; set "
                    f"decision.metric and task.score_keys ({log}){_way(spec)}"
                )
        if recorder.valid is None and self.task.score_keys:
            return
        if recorder.valid is None:
            raise UserError(
                f"{_whose(spec)} left no validation loss in {where}: "
                f"{recorder.missing('valid_loss')}; set task.metrics and task.valid_key{note} "
                f"({log}){_way(spec)}"
            )
        step, _ = recorder.valid
        if not spec.steps - 1 <= step <= spec.steps:
            raise UserError(
                f"{_whose(spec)} should take {spec.steps} steps, but its last validation "
                f"loss, which is the result, is of step {step}: train {{steps}} steps, and "
                f"evaluate after the last step{note} ({log}){_way(spec)}"
            )
        try:
            recorder.check_result()
            if recorder.untrained and recorder.other_losses:
                raise UserError(recorder.untrained)
        except UserError as error:
            raise UserError(
                f'{_whose(spec)}: {error}; set task.loss_key (to "" for none) or '
                f"task.valid_key ({log})"
            ) from None


def _take_rows(writer: RunWriter, spec: RunSpec) -> None:
    """A branch's curve begins with its trunk's."""
    if not spec.trunk:
        return
    for row in read_run(writer.path.parent / spec.trunk).rows:
        if row["step"] <= spec.start:
            writer.row(**{key: value for key, value in row.items() if key != "seconds"})


def _check_tokens(writer: RunWriter, spec: RunSpec, outcome: Outcome) -> None:
    """See that a branch counts its trunk's tokens, too.

    Raises:
        UserError: if a step has other tokens than in the trunk.
    """
    trunk = read_run(writer.path.parent / spec.trunk).outcome if spec.trunk else None
    if trunk is None or not (outcome.steps and trunk.steps and trunk.tokens):
        return
    mine, theirs = outcome.tokens / outcome.steps, trunk.tokens / trunk.steps
    if abs(mine / theirs - 1.0) > TOKENS_APART:
        raise UserError(
            f"{_whose(spec)} counts {outcome.tokens} tokens after {outcome.steps} steps "
            f"({mine:.4g} a step), and its trunk counts {theirs:.4g} a step: a run with "
            "{init_from} must continue counting tokens and steps from that state"
        )


def _whose(spec: RunSpec) -> str:
    return f"the command of {spec.run_id}"


def _way(spec: RunSpec) -> str:
    """Way out, where a run may be too short for its command."""
    if spec.purpose != "probe":
        return ""
    return (
        f". This was a short run, {spec.steps} steps: tie warm-up, decay and evaluations to "
        "{steps}, or set running.probe_steps to what the command can do"
    )


def columns_of(task: CommandPlan) -> Columns:
    """The names in the command's files."""
    return Columns(
        step=task.step_key,
        loss=task.loss_key,
        valid_loss=task.valid_key,
        tokens=task.tokens_key,
        tokens_per_step=task.tokens_per_step,
        seconds=task.seconds_key,
        grad_norm=task.grad_norm_key,
        state_bytes=task.state_bytes_key,
        parameters=task.parameters_key,
        scores=task.score_keys,
    )


def _follow(
    process: subprocess.Popen[Any],
    tail: Tail,
    recorder: Recorder,
    pace: Pace,
    on_step: Callable[[int], None],
    poll: float,
) -> int:
    """Read the rows as they come, until the command has ended or its loss is no number."""
    status: int | None = None
    while status is None and not recorder.broken:
        began = time.monotonic()
        status = process.poll()  # before the rows, so that none is missed
        rows = list(tail.rows(final=status is not None))
        for row in rows:
            recorder.add(row)
        on_step(recorder.step)
        if status is None:
            pace.look(rows, began)
            time.sleep(max(poll, 10 * (time.monotonic() - began)))
    return status or 0


def last_line(log: Path) -> str:
    """Last line that the command printed."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 65536))
        lines = file.read().decode(errors="replace").splitlines()
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:300] if said else "it said nothing"


def _status(status: int) -> str:
    """How a command ended: 128 + n is signal n, as shells say; ``sys.exit(-1)`` is no signal."""
    if status == 128 + 9:
        return "by signal 9 (out of memory?)"
    signal = status - 128
    return f"by signal {signal}" if 0 < signal <= LAST_SIGNAL else f"with status {status}"

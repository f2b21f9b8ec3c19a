"""One folder a run: ``manifest.json`` (what, where, outcome) and ``rows.jsonl`` (what happened)."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Any, Literal

from ...errors import DamagedError, UserError
from ...files import no_link, read_json, write_json, write_text
from ..plan.run_spec import RunSpec

FORMAT = 1
BUDGET = "the pilot's budget is spent"
"""Why a run was not begun, or ended before its time."""
CHECKPOINTS = "checkpoints"  # folder of a run under way, in its own
TIMINGS = ("seconds", "tokens_per_second", "optimizer_share", "mfu")
"""Fields of a row that depend on the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended.

    Args:
        status: "finished", or "diverged": the loss left the finite numbers or blew up.
        final_loss: validation loss after the whole schedule, nats per token; None if diverged.
        steps: taken, those of a branch's trunk among them.
        tokens: trained on.
        seconds: of training, evaluation left out; of a branch, its own, without its trunk's.
        parameters: of the model.
        state_bytes: of the optimizer's state.
        reason: of a divergence.
        scores: what its last evaluation tells beside the loss, such as the accuracy.
    """

    status: Literal["finished", "diverged"]
    final_loss: float | None
    steps: int
    tokens: int
    seconds: float
    parameters: int
    state_bytes: int
    reason: str = ""
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """A try of a run that came to no outcome. It says nothing about the optimizer.

    Args:
        kind: "failed" (an error in it), "died" (its process was ended from outside) or
            "timed out".
        reason: one line.
        details: such as a traceback.
        again: whether another try can end otherwise: "never", or "always" for a try that has
            brought the run on, so that it does not count.
    """

    kind: Literal["failed", "died", "timed out"]
    reason: str
    details: str = ""
    again: Literal["perhaps", "never", "always"] = "perhaps"

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as read back; ``outcome`` is None while it is unfinished."""

    path: Path
    spec: RunSpec
    outcome: Outcome | None
    environment: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    failures: tuple[Failure, ...] = ()
    damaged: str = ""  # what of it could not be read, though its outcome stands

    @property
    def final_loss(self) -> float | None:
        """Validation loss at the end, None for a diverged or unfinished run."""
        return self.outcome.final_loss if self.outcome else None

    @property
    def work(self) -> int:
        """Steps that the run has taken itself: a branch's without those of its trunk."""
        return max(0, self.outcome.steps - self.spec.start) if self.outcome else 0

    @property
    def own_tokens(self) -> int:
        """Tokens of these steps."""
        taken = self.outcome.steps if self.outcome else 0
        return self.outcome.tokens * self.work // taken if self.outcome and taken else 0


class RunWriter:
    """Writes one run. The first row throws away those that an interrupted try left.

    Args:
        runs: folder of all runs.
        spec: of this one.
        environment: for its manifest.
        silent: write nothing and only remember, as one of several processes that make the run.
    """

    def __init__(
        self, runs: Path, spec: RunSpec, environment: dict[str, Any], *, silent: bool = False
    ) -> None:
        self.path = runs / spec.run_id
        self.rows: list[dict[str, Any]] = []  # written so far
        self.keeps_checkpoints = False
        self._silent = silent
        self._file: IO[str] | None = None
        self._manifest = {} if silent else _begin(self.path, spec, environment)

    def row(self, /, **values: Any) -> None:
        """Append one row; it is on its way to the disk when this returns.

        NaN and infinities are written as null: JSON has no word for them.
        """
        values = {
            k: None if isinstance(v, float) and not math.isfinite(v) else v
            for k, v in values.items()
        }
        self.rows.append(values)
        if not self._silent:
            file = self._opened()
            file.write(json.dumps(values) + "\n")
            file.flush()

    def finish(self, outcome: Outcome) -> None:
        """Record the outcome; from here on the run is never computed again."""
        if self._silent:
            return
        os.fsync(self._opened().fileno())
        self.close()
        told = asdict(outcome)
        if not outcome.scores:
            del told["scores"]
        self._manifest["outcome"] = told
        write_json(self.path / "manifest.json", self._manifest)
        if not self.keeps_checkpoints:
            shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)

    def close(self) -> None:
        """Close the files of a run that did not finish."""
        if self._file is not None:
            self._file.close()

    def _opened(self) -> IO[str]:
        """Not before there is something to write: a run that is refused leaves all as it was."""
        if self._file is None:
            path = self.path / "rows.jsonl"
            self._file = open(path, "w", encoding="utf-8", opener=no_link)  # noqa: SIM115
        return self._file


def record_failure(runs: Path, spec: RunSpec, failure: Failure) -> None:
    """Add a failed try to the folder of its run, which stays unfinished."""
    path = runs / spec.run_id
    if not (path / "manifest.json").exists():  # it died before it wrote any
        _begin(path, spec, {})
    old = [asdict(f) for f in _read_failures(path / "failures.jsonl")]
    lines = [json.dumps(f) + "\n" for f in (*old, asdict(failure))]
    write_text(path / "failures.jsonl", "".join(lines))


def checkpoint_name(step: int) -> str:
    """Name of the folder with the state after ``step`` steps; names sort by step."""
    return f"step-{step:012d}"


def branch_point(runs: Path, spec: RunSpec) -> Path:
    """Where a branch's trunk leaves the state that it starts from; a command's trunk, in job/."""
    trunk = runs / spec.trunk
    if spec.task.kind == "command":
        return trunk / "job" / f"step-{spec.start}"
    return trunk / CHECKPOINTS / checkpoint_name(spec.start)


def forget_branch_point(runs: Path, spec: RunSpec) -> None:
    """Remove the state that a branch has started from, now that it has finished."""
    if not spec.trunk:
        return
    path = branch_point(runs, spec)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty yet, or not there
        path.parent.rmdir()


def ended_before(trunk: Outcome, spec: RunSpec) -> bool:
    """Whether a branch's trunk diverged before the branch could start."""
    return trunk.status == "diverged" and trunk.steps <= spec.start


def ended_with_trunk(writer: RunWriter, spec: RunSpec) -> Outcome | None:
    """How a branch ended whose trunk diverged before it could branch off: as its trunk did.

    Its rows are the trunk's.

    Returns:
        None where there is something to run.

    Raises:
        UserError: if its trunk has not finished.
    """
    if not spec.trunk:
        return None
    trunk = read_run(writer.path.parent / spec.trunk)
    if trunk.outcome is None:
        raise UserError(f"{trunk.path} has not finished, and its branches start from its end")
    if not ended_before(trunk.outcome, spec):
        return None
    for row in trunk.rows:
        writer.row(**row)
    return replace(trunk.outcome, seconds=0.0)


def _begin(path: Path, spec: RunSpec, environment: dict[str, Any]) -> dict[str, Any]:
    path.mkdir(parents=True, exist_ok=True)
    manifest = {
        "format": FORMAT,
        "run_id": spec.run_id,
        "spec": spec.to_dict(),
        "environment": environment,
        "outcome": None,
    }
    write_json(path / "manifest.json", manifest)
    return manifest


def read_run(path: Path) -> Run:
    """Read one run's folder; a last line cut short by a crash is passed over.

    Raises:
        DamagedError: if its manifest is no manifest: cut short or overwritten.
        UserError: if the folder does not hold a run this version can read.
    """
    file = path / "manifest.json"
    manifest = read_json(file)
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise DamagedError(f"{file} is damaged: it holds no manifest")
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"{file} has format {manifest.get('format')!r}, and this version reads {FORMAT}: "
            "read it with the version of mars-optim that wrote it"
        )
    try:
        outcome = manifest["outcome"]
        rows, whole = _read_rows(path / "rows.jsonl")
        return Run(
            path=path,
            spec=RunSpec.from_dict(manifest["spec"]),
            outcome=None if outcome is None else Outcome(**outcome),
            environment=manifest["environment"],
            rows=rows,
            failures=_read_failures(path / "failures.jsonl"),
            damaged="" if whole or outcome is None else f"rows.jsonl after line {len(rows)}",
        )
    except (KeyError, TypeError, UserError) as error:
        raise UserError(
            f"{file} is damaged ({error}): delete its folder, and the pilot repeats the run"
        ) from None


def read_runs(runs: Path) -> list[Run]:
    """Every run below ``runs`` whose manifest can be read, finished or not, by folder name."""
    return [run for run in _each(runs) if isinstance(run, Run)]


def damaged_runs(runs: Path) -> list[Path]:
    """Folders below ``runs`` whose manifest is damaged: nobody knows what they held."""
    return [path for path in _each(runs) if isinstance(path, Path)]


def _each(runs: Path) -> Iterator[Run | Path]:
    for manifest in sorted(runs.glob("*/manifest.json")):
        try:
            yield read_run(manifest.parent)
        except DamagedError:
            yield manifest.parent


def _read_rows(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The rows up to the first damaged line, and whether that is all of the file."""
    rows: list[dict[str, Any]] = []
    if not path.exists():
        return rows, False
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return rows, False  # cut short: nothing after it can be whole
        if not isinstance(row, dict):
            return rows, False
        rows.append(row)
    return rows, True


def _read_failures(path: Path) -> tuple[Failure, ...]:
    rows, _ = _read_rows(path)
    names = {f.name for f in fields(Failure)}
    return tuple(Failure(**row) for row in rows if {"kind", "reason"} <= row.keys() <= names)

"""Scalars of runs for other programs, and the walk over the runs of a folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...errors import UserError, check_folder
from ..records import Run, read_run

TAGS = {
    "loss": "loss/training",
    "valid_loss": "loss/validation",
    "bits_per_byte": "loss/bits per byte",
    "accuracy": "score/accuracy",
    "lr": "schedule/learning rate",
    "grad_norm": "gradient/norm",
    "tokens_per_second": "speed/tokens per second",
    "mfu": "speed/model FLOPs utilisation",
    "optimizer_share": "speed/optimizer's share of the step",
}
"""Key of a row -> its name elsewhere. Numbers under other keys go to ``more/KEY``, and those of a
table to ``TABLE/KEY``: what is recorded is shown."""

FINAL = "loss/final over tokens"  # runs of different budgets on one axis
_AXES = ("step", "tokens", "seconds")
STAMP = ".mars"  # our files' names end so, and only those are replaced


@dataclass(frozen=True, slots=True)
class Point:
    """Scalars of one row.

    Args:
        step: optimizer steps taken.
        time: Unix time, such that differences are the run's own seconds of training.
        values: by name; missing ones (NaN in training) are left out.
    """

    step: int
    time: float
    values: dict[str, float]


def points(run: Run) -> list[Point]:
    """Every row of ``run``, in order."""
    start = (run.path / "rows.jsonl").stat().st_mtime - run.rows[-1].get("seconds", 0.0)
    return [
        Point(row["step"], start + row.get("seconds", 0.0), dict(_scalars(row))) for row in run.rows
    ]


def settings(run: Run) -> dict[str, str | int | float]:
    """Settings that tell the run from the others."""
    spec = run.spec
    return {
        "arm": spec.arm_name,
        "learning rate": spec.lr,
        "seed": spec.seed,
        "steps": spec.steps,
        "purpose": spec.purpose,
    }


def _scalars(row: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in row.items():
        if isinstance(value, dict):
            for inner, number in value.items():
                if _is_number(number):
                    yield f"{key}/{inner}", number
        elif key not in _AXES and _is_number(value):
            yield TAGS.get(key, f"more/{key}"), value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Bridge(Protocol):
    """Writes runs for one other program, on this machine only.

    Args:
        out: folder that it writes to.
        look: command that shows what is there.
    """

    out: Path
    look: str

    def exported(self, run: Run) -> Iterable[Path]:
        """Files whose age tells how old the copy of ``run`` is; none if there is no copy."""
        ...

    def write(self, run: Run) -> None:
        """Write ``run`` over what there is of it."""
        ...


def export_runs(folder: Path, bridge: Bridge) -> tuple[int, int]:
    """Write every run of ``folder`` that has grown since it was written last.

    So it can be called again and again while the runs go on.

    Args:
        folder: of a pilot or of ``mars train``, or of one run.
        bridge: to the other program.

    Returns:
        How many runs were written, and how many were there already.

    Raises:
        UserError: if ``folder`` holds no run, or the target cannot be written to.
    """
    written = kept = 0
    for path in run_folders(folder):
        try:
            run = read_run(path)
            if not run.rows:
                continue
            if is_new(run, bridge.exported(run)):
                bridge.write(run)
                written += 1
            else:
                kept += 1
        except OSError as error:
            raise UserError(f"{bridge.out} cannot be written to: {error.strerror}") from None
    return written, kept


def run_folders(folder: Path) -> list[Path]:
    """The folders of runs that ``folder`` is or holds, by name.

    Raises:
        UserError: if there is none, and no plan that would make some.
    """
    if (folder / "manifest.json").is_file():
        return [folder]
    found = sorted(path.parent for path in (folder / "runs").glob("*/manifest.json"))
    check_folder(folder)
    if not found and not (folder / "plan.toml").is_file():
        raise UserError(
            f"{folder} holds neither a pilot nor a run (no plan.toml, no manifest.json, "
            f"nothing in runs/); `mars pilot --out {folder}` makes a pilot"
        )
    return found


def is_new(run: Run, exported: Iterable[Path]) -> bool:
    """Whether the run has been written to since it was exported."""
    times = [(run.path / name).stat().st_mtime_ns for name in ("manifest.json", "rows.jsonl")]
    copies = [path.stat().st_mtime_ns for path in exported]
    return not copies or max(copies) <= max(times)

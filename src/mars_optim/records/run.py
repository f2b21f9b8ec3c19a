"""One folder a run: ``manifest.json`` (what, where, outcome) and ``rows.jsonl`` (what happened)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from .errors import UserError
from .spec import RunSpec

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended.

    Args:
        status: "finished", or "diverged": the loss left the finite numbers or blew up.
        final_loss: validation loss after the whole schedule, nats per token; None if diverged.
        steps: taken.
        tokens: trained on.
        seconds: of training, evaluation left out.
        parameters: of the model.
        state_bytes: of the optimizer's state.
        reason: of a divergence.
    """

    status: Literal["finished", "diverged"]
    final_loss: float | None
    steps: int
    tokens: int
    seconds: float
    parameters: int
    state_bytes: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as read back; ``outcome`` is None while it is unfinished."""

    path: Path
    spec: RunSpec
    outcome: Outcome | None
    environment: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def final_loss(self) -> float | None:
        """Validation loss at the end, None for a diverged or unfinished run."""
        return self.outcome.final_loss if self.outcome else None


class RunWriter:
    """Writes one run. Starting it again throws away what an interrupted try left."""

    def __init__(self, runs: Path, spec: RunSpec, environment: dict[str, Any]) -> None:
        self.path = runs / spec.run_id
        self.path.mkdir(parents=True, exist_ok=True)
        self._manifest: dict[str, Any] = {
            "format": FORMAT,
            "run_id": spec.run_id,
            "spec": spec.to_dict(),
            "environment": environment,
            "outcome": None,
        }
        write_json(self.path / "manifest.json", self._manifest)
        self._rows = (self.path / "rows.jsonl").open("w", encoding="utf-8")

    def row(self, **values: Any) -> None:
        """Append one row; it is on its way to the disk when this returns.

        NaN and infinities are written as null: JSON has no word for them.
        """
        values = {
            k: None if isinstance(v, float) and not math.isfinite(v) else v
            for k, v in values.items()
        }
        self._rows.write(json.dumps(values) + "\n")
        self._rows.flush()

    def finish(self, outcome: Outcome) -> None:
        """Record the outcome; from here on the run is never computed again."""
        os.fsync(self._rows.fileno())
        self._rows.close()
        self._manifest["outcome"] = asdict(outcome)
        write_json(self.path / "manifest.json", self._manifest)

    def close(self) -> None:
        """Close the files of a run that did not finish."""
        self._rows.close()


def read_run(path: Path) -> Run:
    """Read one run's folder; a last line cut short by a crash is passed over.

    Raises:
        UserError: if the folder does not hold a run this version can read.
    """
    file = path / "manifest.json"
    manifest = read_json(file)
    if not isinstance(manifest, dict):
        raise UserError(f"{file} is damaged: it holds no table")
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"{file}: format {manifest.get('format')!r} is not this version's ({FORMAT}): read it "
            "with the version of mars-optim that wrote it"
        )
    try:
        outcome = manifest["outcome"]
        return Run(
            path=path,
            spec=RunSpec.from_dict(manifest["spec"]),
            outcome=None if outcome is None else Outcome(**outcome),
            environment=manifest["environment"],
            rows=list(_read_rows(path / "rows.jsonl")),
        )
    except (KeyError, TypeError, UserError) as error:
        raise UserError(
            f"{file} is damaged ({error}): delete its folder, and the run is made again"
        ) from None


def read_runs(runs: Path) -> list[Run]:
    """Every run below ``runs``, finished or not, by folder name."""
    if not runs.is_dir():
        return []
    return [read_run(p.parent) for p in sorted(runs.glob("*/manifest.json"))]


def write_json(path: Path, data: Any) -> None:
    """Write whole or not at all: to a file beside it, to the disk, then renamed over it."""
    write_text(path, json.dumps(data, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """As :func:`write_json`, for text."""
    beside = path.with_name(path.name + ".tmp")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        UserError: naming the file, if it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _read_rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return  # cut short: nothing after it can be whole

"""Runs in trackio's own database, on this machine: as its ``import_csv`` writes them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...errors import UserError, need
from ..records import Run
from .scalars import FINAL, STAMP, points, settings


class Trackio:
    """Every run in the project ``project`` of ``out`` (see :class:`~.scalars.Bridge`).

    Not by ``trackio.init``: it asks the Hub who is logged in, goes to a server that the
    environment names, and takes no times.

    Args:
        out: for ``TRACKIO_DIR``.
        project: name; letters, digits, ``-`` and ``_`` are kept.

    Raises:
        UserError: if trackio is not installed, or in use with another folder already.
    """

    def __init__(self, out: Path, project: str) -> None:
        self.out = out.resolve()
        os.environ["TRACKIO_DIR"] = str(self.out)  # read when it is imported
        need("trackio", "trackio")
        self._storage = _storage(self.out)
        self.project = "".join(c for c in project if c.isalnum() or c in "-_") or "mars"
        self._known = (self.out / f"{self.project}.db").exists()  # else the stamps are of another
        self.look = f"TRACKIO_DIR={out} trackio show --project {self.project}"

    def exported(self, run: Run) -> Iterable[Path]:
        """A stamp beside the database."""
        return [path for path in [self._stamp(run)] if self._known and path.exists()]

    def write(self, run: Run) -> None:
        """Replace the run in the database."""
        rows = [row for row in points(run) if row.values]
        name = run.spec.run_id
        self.out.mkdir(parents=True, exist_ok=True)
        self._storage.delete_run(self.project, name)
        self._storage.bulk_log(
            self.project,
            name,
            [row.values for row in rows],
            steps=[row.step for row in rows],
            timestamps=[datetime.fromtimestamp(row.time, UTC).isoformat() for row in rows],
            config=settings(run),
        )
        if run.outcome and run.final_loss is not None:
            final = dict(metrics_list=[{FINAL: run.final_loss}], steps=[run.outcome.tokens])
            self._storage.bulk_log(self.project, name, **final)
        self._stamp(run).touch()

    def _stamp(self, run: Run) -> Path:
        return self.out / f"{run.path.name}{STAMP}"


def _storage(out: Path) -> Any:
    import trackio

    try:
        from trackio.sqlite_storage import SQLiteStorage
        from trackio.utils import TRACKIO_DIR
    except ImportError:
        raise UserError(
            f"trackio {trackio.__version__} stores its runs in another way than 0.43: pip "
            "install 'mars-optim[trackio]'"
        ) from None
    if Path(TRACKIO_DIR).resolve() != out:
        raise UserError(
            f"this process already uses trackio with {TRACKIO_DIR}: export to {out} in a new "
            "process"
        )
    return SQLiteStorage

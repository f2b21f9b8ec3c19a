"""Runs as W&B's offline files, which ``wandb sync`` uploads if and when the user wants."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...errors import need
from ..records import Run
from .scalars import FINAL, STAMP, points, settings


class WandB:
    """Every run in a folder of its own below ``out`` (see :class:`~.scalars.Bridge`).

    Args:
        out: for ``wandb sync``.
        project: name.

    Raises:
        UserError: if wandb is not installed.
    """

    def __init__(self, out: Path, project: str) -> None:
        os.environ["WANDB_ERROR_REPORTING"] = "false"  # else offline too it reports to its makers
        need("wandb", "wandb")
        self.out = out
        self.project = "".join("-" if c in '/\\#?%:"' else c for c in project) or "mars"
        self.look = f"wandb sync {out}/*/wandb/offline-run-* (uploads)"

    def exported(self, run: Run) -> Iterable[Path]:
        """A stamp beside the offline run."""
        return (self.out / run.path.name / "wandb").glob(f"*{STAMP}")

    def write(self, run: Run) -> None:
        """Write the run anew, under the same id."""
        import wandb

        folder = self.out / run.path.name
        shutil.rmtree(folder / "wandb", ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        copy = wandb.init(
            mode="offline",
            project=self.project,
            id=run.spec.run_id,
            group=run.spec.arm_name,
            job_type=run.spec.purpose,
            config=settings(run),
            dir=str(folder),
            reinit="create_new",
            settings=_quiet(wandb),
        )
        if not copy.offline:  # whatever the environment says
            raise RuntimeError("W&B did not take mode='offline'")
        for row in points(run):
            copy.log({**row.values, "_timestamp": row.time}, step=row.step)
        if run.outcome and run.final_loss is not None:
            copy.summary[FINAL] = run.final_loss
            copy.summary["tokens"] = run.outcome.tokens
        copy.finish()
        (folder / "wandb" / f"{run.path.name}{STAMP}").touch()


def _quiet(wandb: Any) -> Any:
    """Nothing of this process and machine: the run was not made here and now."""
    return wandb.Settings(
        silent=True,
        console="off",
        save_code=False,
        disable_git=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )

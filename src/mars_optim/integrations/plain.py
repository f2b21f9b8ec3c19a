"""For a loop written by hand: the metrics file that ``mars pilot`` reads. Standard library only."""

from __future__ import annotations

import json
from pathlib import Path


class RecordMetrics:
    """Appends rows to ``metrics.jsonl``, as a plan with ``task.kind = "command"`` reads them.

        record = RecordMetrics(run_dir)
        record(step=step, loss=loss.item())
        record(step=steps, valid_loss=evaluate())

    Args:
        run_dir: what ``{run_dir}`` of the command stands for; made if it is not there.
        write: whether this process writes; True on rank 0 only.
    """

    def __init__(self, run_dir: str | Path, *, write: bool = True) -> None:
        self.path = Path(run_dir) / "metrics.jsonl"
        self.write = write
        if write:
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, *, step: int, **values: float) -> None:
        """Append one row; it can be read when this returns.

        Args:
            step: optimizer steps taken.
            **values: such as ``loss``, ``valid_loss``, ``tokens``, ``seconds``, ``grad_norm``,
                ``state_bytes``, ``parameters``.
        """
        if self.write:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")

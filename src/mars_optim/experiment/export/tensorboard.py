"""Runs as TensorBoard's event files, written by TensorBoard's own writer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...errors import need
from ..records import Run
from .scalars import FINAL, STAMP, points, settings


class TensorBoard:
    """Every run in a folder of its own below ``out`` (see :class:`~.scalars.Bridge`).

    Args:
        out: for ``tensorboard --logdir``.

    Raises:
        UserError: if TensorBoard is not installed.
    """

    def __init__(self, out: Path) -> None:
        need("tensorboard", "tensorboard")
        self.out = out
        self.look = f"tensorboard --logdir {out}"

    def exported(self, run: Run) -> Iterable[Path]:
        """Our event files of the run."""
        return (self.out / run.path.name).glob(f"*{STAMP}")

    def write(self, run: Run) -> None:
        """Write one event file, in place of our last."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        for old in list(self.exported(run)):
            old.unlink()
        writer = EventFileWriter(str(self.out / run.path.name), filename_suffix=STAMP)
        rows = points(run)
        hparams = hparams_pb(settings(run), trial_id=run.spec.run_id)
        writer.add_event(Event(wall_time=rows[0].time, step=0, summary=hparams))
        for row in rows:
            summary = _summary(row.values)
            writer.add_event(Event(wall_time=row.time, step=row.step, summary=summary))
        if run.outcome and run.final_loss is not None:
            final = _summary({FINAL: run.final_loss})
            writer.add_event(Event(wall_time=rows[-1].time, step=run.outcome.tokens, summary=final))
        writer.close()


def _summary(values: dict[str, float]) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=tag, simple_value=v) for tag, v in values.items()])

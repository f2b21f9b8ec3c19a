"""The runs of a pilot as TensorBoard's event files, written by TensorBoard's own writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..records import Run, UserError, read_run
from ..records.spec import RunSpec

SUFFIX = ".mars"  # our files' names end so, and only those are replaced
TAGS = {
    "loss": "loss/training",
    "valid_loss": "loss/validation",
    "lr": "schedule/learning rate",
    "grad_norm": "gradient/norm",
}
"""Key of a row -> its name in TensorBoard, over optimizer steps."""


def export_events(out: Path, logdir: Path) -> tuple[int, int]:
    """Write every run of the pilot in ``out`` to a folder of its own below ``logdir``.

    A run that has grown since it was written last is written anew; the others are left alone, so
    it can be called again and again while the pilot runs.

    Args:
        out: folder of a pilot.
        logdir: for ``tensorboard --logdir``.

    Returns:
        How many runs were written, and how many were there already.

    Raises:
        UserError: if TensorBoard is not installed, or ``logdir`` cannot be written to.
    """
    _need_tensorboard()
    written = kept = 0
    for manifest in sorted((out / "runs").glob("*/manifest.json")):
        try:
            run = read_run(manifest.parent)
            if not run.rows:
                continue
            folder = logdir / run.path.name
            if _is_new(run, folder):
                _write(run, folder)
                written += 1
            else:
                kept += 1
        except OSError as error:
            raise UserError(f"{logdir} cannot be written to: {error.strerror}") from None
    return written, kept


def _need_tensorboard() -> None:
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise UserError(
            "TensorBoard is not installed: pip install 'mars-optim[tensorboard]'"
        ) from None


def _is_new(run: Run, folder: Path) -> bool:
    """Whether the run has been written to since its event file was."""
    times = [(run.path / name).stat().st_mtime_ns for name in ("manifest.json", "rows.jsonl")]
    exported = [path.stat().st_mtime_ns for path in folder.glob(f"*{SUFFIX}")]
    return not exported or max(exported) <= max(times)


def _write(run: Run, folder: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for old in folder.glob(f"*{SUFFIX}"):
        old.unlink()
    # seconds of training, so that TensorBoard's relative time is the run's own
    start = (run.path / "rows.jsonl").stat().st_mtime - run.rows[-1].get("seconds", 0.0)
    writer = EventFileWriter(str(folder), filename_suffix=SUFFIX)
    writer.add_event(Event(wall_time=start, step=0, summary=_settings(run.spec)))
    for row in run.rows:
        values = {TAGS[k]: v for k, v in row.items() if k in TAGS and v is not None}
        at = start + row.get("seconds", 0.0)
        writer.add_event(Event(wall_time=at, step=row["step"], summary=_scalars(values)))
    if run.outcome and run.final_loss is not None:
        # over tokens: runs of different budgets on one axis
        final = _scalars({"loss/final over tokens": run.final_loss})
        writer.add_event(Event(wall_time=at, step=run.outcome.tokens, summary=final))
    writer.close()


def _scalars(values: dict[str, float]) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=tag, simple_value=v) for tag, v in values.items()])


def _settings(spec: RunSpec) -> Any:
    """For TensorBoard's table of hyper-parameters."""
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    settings = {"arm": spec.arm_name, "learning rate": spec.lr, "seed": spec.seed}
    settings |= {"steps": spec.steps, "stage": spec.stage}
    return hparams_pb(settings, trial_id=spec.run_id)

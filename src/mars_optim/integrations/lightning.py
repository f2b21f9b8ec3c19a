"""For Lightning's Trainer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from .plain import RecordMetrics as _Metrics


class RecordMetrics(Callback):
    """Writes losses where ``mars pilot`` reads them: ``metrics.jsonl``.

        Trainer(..., callbacks=[RecordMetrics(run_dir, valid="val_loss")])

    The last validation must come after the last step: call ``trainer.validate(...)`` once trained.

    Args:
        run_dir: what ``{run_dir}`` of the command stands for.
        valid: name under which ``validation_step`` logs its loss.
        every: training steps from one row to the next.
    """

    def __init__(self, run_dir: str | Path, *, valid: str = "val_loss", every: int = 1) -> None:
        self.run_dir, self.valid, self.every = run_dir, valid, every
        self.seconds = 0.0
        self._start = 0.0
        self._last_step = 0

    def on_train_batch_start(self, trainer: Any, *more: Any) -> None:
        """A batch starts."""
        self._start = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *more: Any) -> None:
        """Write the loss that ``training_step`` returned, once for each optimizer step."""
        self.seconds += time.perf_counter() - self._start
        step = trainer.global_step
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if loss is not None and step != self._last_step and step % self.every == 0:
            self._last_step = step
            self._write(trainer, loss=float(loss))

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Write the validation loss."""
        if not trainer.sanity_checking and self.valid in trainer.callback_metrics:
            self._write(trainer, valid_loss=float(trainer.callback_metrics[self.valid]))

    def _write(self, trainer: Any, **values: float) -> None:
        record = _Metrics(self.run_dir, write=trainer.is_global_zero)
        record(step=trainer.global_step, seconds=self.seconds, **values)

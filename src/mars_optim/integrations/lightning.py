"""For Lightning's Trainer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature

from ..optim import MARS
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
        """Write the loss that ``training_step`` returned, once for each optimizer step.

        Lightning hands over loss / accumulate_grad_batches, that of the last micro-batch.
        """
        self.seconds += time.perf_counter() - self._start
        step = trainer.global_step
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is not None and step != self._last_step and step % self.every == 0:
            self._last_step = step
            self._write(trainer, loss=float(loss) * trainer.accumulate_grad_batches)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Write the validation loss."""
        if not trainer.sanity_checking and self.valid in trainer.callback_metrics:
            self._write(trainer, valid_loss=float(trainer.callback_metrics[self.valid]))

    def _write(self, trainer: Any, **values: float) -> None:
        record = _Metrics(self.run_dir, write=trainer.is_global_zero)
        record(step=trainer.global_step, seconds=self.seconds, **values)


class PreviousPoint(Callback):
    """``correction="exact"`` with ``accumulate_grad_batches``: each micro-batch at both points.

        Trainer(..., accumulate_grad_batches=4, callbacks=[PreviousPoint()])

    Lightning gives the optimizer a closure for the last micro-batch alone, so without this callback
    the correction would be that micro-batch's. It runs ``training_step`` once more on every batch,
    at the last step's parameters, with the same random numbers and without logging. Not under a
    gradient scaler (``"16-mixed"``): its scale is out of reach here.
    """

    def on_train_batch_start(
        self, trainer: Any, module: Any, batch: Any, batch_idx: int, *more: Any
    ) -> None:
        """The pass at the last step's parameters."""
        for wrapper in trainer.optimizers:
            optimizer = getattr(wrapper, "optimizer", wrapper)
            if not isinstance(optimizer, MARS) or not optimizer._exact():
                continue
            if getattr(trainer.precision_plugin, "scaler", None) is not None:
                raise RuntimeError(
                    "PreviousPoint cannot be used with a gradient scaler: use bf16-mixed, or "
                    "manual optimization and previous_point(scaler=)"
                )
            with optimizer.previous_point(), torch.enable_grad(), _silent(module):
                numbered = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
                batch_and_index = (batch, batch_idx) if numbered else (batch,)
                loss = trainer.strategy.training_step(*batch_and_index)
                loss = loss["loss"] if isinstance(loss, dict) else loss
                if loss is not None:
                    trainer.strategy.backward(loss / trainer.accumulate_grad_batches, None)


@contextlib.contextmanager
def _silent(module: Any) -> Iterator[None]:
    """``self.log`` within would be a second value of the same step."""
    own = vars(module)
    before = {name: own[name] for name in ("log", "log_dict") if name in own}
    for name in ("log", "log_dict"):
        own[name] = lambda *values, **options: None
    try:
        yield
    finally:
        for name in ("log", "log_dict"):
            del own[name]
        own.update(before)

"""For the Trainer of Hugging Face transformers: groups by module and name instead of its two."""

from __future__ import annotations

import inspect
import time
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from ..optim import MARS, param_groups
from .plain import RecordMetrics as _Metrics


class GroupedMARS:
    """Factory for ``Trainer(optimizer_cls_and_kwargs=(GroupedMARS, {...}))``.

    The Trainer sorts parameters by name into two groups, decayed or not, and knows no embeddings
    or heads. This hands it ``MARS(param_groups(model, ...))`` instead::

        Trainer(..., optimizer_cls_and_kwargs=(GroupedMARS, {"rule": "muon", "lr": 6e-3}))

    The Trainer passes neither ``learning_rate`` nor ``weight_decay`` of its arguments: give
    them here.
    """

    def __call__(self, model: nn.Module, **options: Any) -> MARS:
        """The optimizer of ``model``.

        Args:
            model: as the Trainer trains it.
            **options: those of :func:`~mars_optim.param_groups`; any others (``eps``, ``amsgrad``,
                ``foreach``, ``fused``, ...) are of :class:`~mars_optim.MARS`.

        Raises:
            TypeError: for an option that neither has.
        """
        of_groups = inspect.signature(param_groups).parameters
        groups = param_groups(model, **{k: v for k, v in options.items() if k in of_groups})
        return MARS(groups, **{k: v for k, v in options.items() if k not in of_groups})


class RecordMetrics(TrainerCallback):
    """Writes what the Trainer logs where ``mars pilot`` reads it: ``metrics.jsonl``.

        Trainer(..., callbacks=[RecordMetrics(run_dir)])

    The last evaluation must come after the last step: call ``trainer.evaluate()`` once trained.

    Args:
        run_dir: what ``{run_dir}`` of the command stands for.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.run_dir = run_dir
        self.seconds = 0.0
        self._start = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """A training step starts."""
        self._start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """A training step is over."""
        self.seconds += time.perf_counter() - self._start

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **more: Any
    ) -> None:
        """Write the losses that are in ``logs``, and metrics of an evaluation by their names."""
        names = {"loss": "loss", "eval_loss": "valid_loss", "grad_norm": "grad_norm"}
        logs = logs or {}
        names |= {key: key for key in logs if key.startswith("eval_") and key not in names}
        row = {ours: float(logs[theirs]) for theirs, ours in names.items() if theirs in logs}
        if not row:
            return
        if state.num_input_tokens_seen:
            row["tokens"] = state.num_input_tokens_seen
        record = _Metrics(self.run_dir, write=state.is_world_process_zero)
        record(step=state.global_step, seconds=self.seconds, **row)

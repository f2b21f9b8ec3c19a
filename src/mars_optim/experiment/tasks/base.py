"""Interface of a task, for the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn


class Task(Protocol):
    """A model, batches addressed by (seed, step), a loss, and a fixed validation set.

    ``mars init task`` writes an example; docs/your-job.md says how to use it.
    """

    fingerprint: str
    """Hash of the data: runs on other data are other runs."""

    batch_tokens: int
    """Tokens in one batch."""

    def build_model(self, seed: int) -> nn.Module:
        """A fresh model; equal seeds give equal weights."""
        ...

    def batch(self, seed: int, step: int, micro: int) -> Any:
        """The training batch at this address, the same for every arm: tensors, nested at will."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Mean loss of a batch, nats per token, 0-d."""
        ...

    def evaluate(self, model: nn.Module, tokens: int) -> float | Mapping[str, float]:
        """Mean validation loss, nats per token, over the same ``tokens`` at every call.

        Or several metrics by name, "loss" among them; ``decision.metric`` may name any.
        """
        ...


def scores_of(task: Task, model: nn.Module, tokens: int) -> dict[str, float]:
    """Scores of a task's evaluation: ``valid_loss`` and whatever else it measures.

    Raises:
        ValueError: if the validation loss is not among it.
    """
    if hasattr(task, "scores"):
        told, name, key = task.scores(model, tokens), "scores", "valid_loss"
    else:
        told, name, key = task.evaluate(model, tokens), "evaluate", "loss"
    if not isinstance(told, Mapping):
        return {"valid_loss": float(told)}
    if key not in told:
        raise ValueError(
            f"{type(task).__name__}.{name}(model, tokens) returned {sorted(told)}: {key!r} "
            "must be among them"
        )
    loss = float(told[key])
    others = {metric: float(value) for metric, value in told.items() if metric != key}
    return {**others, "valid_loss": loss}

"""What the training loop asks of a task."""

from __future__ import annotations

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

    def evaluate(self, model: nn.Module, tokens: int) -> float:
        """Mean validation loss, nats per token, over the same ``tokens`` at every call."""
        ...

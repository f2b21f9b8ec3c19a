"""A task for `mars pilot`: replace the model, the data and the loss by yours.

Batches are addressed by (seed, step, micro) and models by seed, so that every arm starts from the
same weights and sees the same data. `mars pilot` tries every method once before it trains.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES, INPUTS, BATCH = 8, 32, 64


class MyTask:
    """Classifies noisy vectors as a fixed random network does."""

    # names the data: runs on other data are other runs. A hash of your files, or their version.
    # (Changes in this file are noticed without it.)
    fingerprint = "synthetic-1"
    # tokens, or samples, in one batch: what the saving is counted in
    batch_tokens = BATCH

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.teacher = torch.randn(INPUTS, CLASSES, generator=generator)
        self.held_out = self._draw(4096, torch.Generator().manual_seed(1))

    def build_model(self, seed: int) -> nn.Module:
        """A fresh model; equal seeds give equal weights."""
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(INPUTS, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, CLASSES)
        )

    def batch(self, seed: int, step: int, micro: int) -> dict[str, Tensor]:
        """A batch on the CPU: a tensor, or a dict, list or tuple of tensors."""
        address = hash((seed, step, micro)) % 2**63
        return self._draw(BATCH, torch.Generator().manual_seed(address))

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Mean loss of a batch: one number with a gradient."""
        return F.cross_entropy(model(batch["x"]), batch["y"])

    @torch.no_grad()
    def evaluate(self, model: nn.Module, tokens: int) -> float:
        """Mean loss on held-out data: the same at every call (training.eval_tokens of it)."""
        device = next(model.parameters()).device
        model.eval()
        loss = self.loss(model, {k: v[:tokens].to(device) for k, v in self.held_out.items()})
        model.train()
        return float(loss)

    def _draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        x = torch.randn(count, INPUTS, generator=generator)
        noise = torch.randn(count, CLASSES, generator=generator)
        return {"x": x, "y": (torch.tanh(x) @ self.teacher + noise).argmax(dim=1)}

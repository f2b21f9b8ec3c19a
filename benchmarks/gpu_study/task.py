"""The package's GPT on text, with what a GPU must not wait for taken out of the step.

The tokens lie on the device, so that a batch is one gather there instead of a loop over windows and
a copy. The loss is part of the model's forward pass, so that torch.compile fuses it with the
logits: on their own they would be written and read in float32, twice 2 GB in a step. Batches, seeds
and parameters are bit for bit those of `TextTask`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mars_optim.experiment.plan.task import GptPlan
from mars_optim.experiment.tasks import GPT, TextTask, load_corpus
from mars_optim.experiment.tasks.address import seed_of
from mars_optim.experiment.tasks.prepared import read_manifest
from mars_optim.experiment.tasks.token_map import Tokens

from ..output import UserError

TOKENS = "tokens"
"""Folder in DATA that ``mars prepare`` wrote."""
TEXT = "text.json"
"""File in DATA that says where the text came from."""


class LossGPT(GPT):
    """A GPT that gives its mean loss, nats per token."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, time + 1) of token ids -> 0-d."""
        logits = super().forward(tokens[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


class DeviceText(TextTask):
    """A text whose tokens are on the device (see :class:`TextTask`).

    Args:
        folder: that ``mars prepare`` wrote.
        plan: of the model.
        device: where it is trained.
    """

    def __init__(self, folder: Path, plan: GptPlan, device: torch.device) -> None:
        given = asdict(plan)
        del given["kind"], given["corpus"]
        super().__init__(load_corpus(str(folder)), **given)
        model: Callable[..., GPT] = LossGPT
        self._model = partial(model, **self._model.keywords)
        self._on_device = {
            split: _whole(tokens).to(device)
            for split, tokens in (("train", self._train), ("valid", self._valid))
        }
        self._reach = torch.arange(self.context + 1, device=device)

    def batch(self, seed: int, step: int, micro: int) -> Tensor:
        """(batch, context + 1) of token ids on the device, int64, at ``TextTask``'s offsets."""
        generator = torch.Generator().manual_seed(seed_of("batch", seed, step, micro))
        high = len(self._train) - self.context
        offsets = torch.randint(high, (self.batch_size,), generator=generator, device="cpu")
        return self._windows("train", offsets)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Mean cross-entropy of the next token, nats."""
        loss: Tensor = model(batch)
        return loss

    @torch.no_grad()
    def evaluate(self, model: nn.Module, tokens: int) -> float:
        """As ``TextTask``, in training's batches; not compiled, for it is a hundredth of the work.

        Windows that fill no batch are left out.
        """
        valid = len(self._valid)
        count = max(1, min(tokens, valid - 1) // self.context)
        count -= count % min(count, self.batch_size)
        last = valid - self.context - 1
        offsets = torch.linspace(0, last, count, dtype=torch.float64, device="cpu").long()
        chunks = torch.split(offsets, self.batch_size)
        losses = [model.forward(self._windows("valid", chunk)).double() for chunk in chunks]
        return float(torch.stack(losses).mean())

    def _windows(self, split: str, offsets: Tensor) -> Tensor:
        tokens = self._on_device[split]
        at = offsets.to(tokens.device, non_blocking=True)[:, None] + self._reach
        return tokens[at].long()


def load_text(data: Path, plan: GptPlan, device: torch.device) -> DeviceText:
    """The text of a folder that ``prepare`` wrote.

    Raises:
        UserError: naming the folder, if it is none or too small.
    """
    try:
        read_manifest(data / TOKENS, "tokens", "DATA")
        return DeviceText(data / TOKENS, plan, device)
    except ValueError as error:
        raise UserError(f"{error}; `gpu_study.sh prepare DATA` writes such a folder") from None


def _whole(tokens: Tokens) -> Tensor:
    """All shards in a row, int32: not every type of the disk can be gathered on a GPU."""
    return torch.cat([shard.int() for shard in tokens.shards])

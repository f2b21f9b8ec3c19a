"""The weights that are judged, where they are others than those that are trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from .contract.trial import has_modes, switch_mode


@contextlib.contextmanager
def judged(optimizer: Optimizer, model: nn.Module) -> Iterator[None]:
    """Put the weights to be judged into ``model``: averages, as of schedule-free optimizers.

    Afterwards those that are trained are back to the bit, which ``eval()`` and ``train()`` alone
    do not see to: a run would depend on how often it is evaluated.
    """
    if not has_modes(optimizer):
        yield
        return
    trained = [p.detach().clone() for p in model.parameters()]
    switch_mode(optimizer, training=False)
    try:
        yield
    finally:
        switch_mode(optimizer, training=True)
        with torch.no_grad():
            for p, kept in zip(model.parameters(), trained, strict=True):
                p.copy_(kept)

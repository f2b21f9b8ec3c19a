"""Weights for a run, made without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mars_optim.experiment.plan import Plan
from mars_optim.experiment.tasks import GPT
from tests.support.written_run import SIZES, write_run


def write_trained(
    out: Path, state: dict[str, Tensor], *, seed: int = 1, plan: Plan | None = None, **more: str
) -> Path:
    """The folder of a finished run with weights."""
    run = write_run(out, seed=seed, plan=plan, **more)
    torch.save(state, run / "weights.pt")
    return run


def gpt(vocabulary: int = 256, **options: Any) -> GPT:
    """A GPT none of whose parameters is 0 or 1, as after training."""
    torch.manual_seed(0)
    model = GPT(vocabulary=vocabulary, **{**SIZES, **options})
    for p in model.parameters():
        nn.init.normal_(p, mean=float(p.ndim == 1), std=0.3)
    return model

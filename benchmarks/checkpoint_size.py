"""Bytes of an optimizer's checkpoint by torch's DCP, flattened or not, as matrices get more.

    python -m benchmarks.checkpoint_size

``gamma="auto"`` keeps samples of all tensors of a group in the group, and a flattened state has the
group once for each of its parameters.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import AdamW, Optimizer

from mars_optim import MARSAdamW

from . import table

MAKERS: tuple[Callable[[Any], Optimizer], ...] = (
    lambda params: AdamW(params, lr=1e-3),
    lambda params: MARSAdamW(params, lr=1e-3, gamma="auto"),
)


def mebibytes(model: nn.Module, optimizer: Optimizer, *, flat: bool) -> float:
    """Size of the optimizer's state on disk."""
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    state = get_optimizer_state_dict(model, optimizer, options=options)
    with tempfile.TemporaryDirectory() as folder:
        save({"optimizer": state}, checkpoint_id=folder, no_dist=True)
        return sum(path.stat().st_size for path in Path(folder).iterdir()) / 2**20


def row(matrices: int) -> list[str]:
    """Both optimizers' sizes, nested and flattened, with so many matrices of 64x64."""
    cells = [str(matrices)]
    for make in MAKERS:
        model = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(matrices)))
        optimizer = make(model.parameters())
        for param in model.parameters():
            param.grad = torch.randn_like(param)
        optimizer.step()
        cells += [f"{mebibytes(model, optimizer, flat=flat):.1f}" for flat in (False, True)]
    return cells


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoint_size")
    parser.add_argument("--matrices", type=int, nargs="+", default=[40, 160])
    given = parser.parse_args()
    heads = ["matrices of 64x64", "AdamW (MiB)", "flattened", 'gamma="auto"', "flattened"]
    print(table.markdown(heads, [row(number) for number in given.matrices]))


if __name__ == "__main__":
    main()

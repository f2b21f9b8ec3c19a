"""State in the CPU's memory: the optimizer steps copies of the parameters that live there."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from mars_optim import MARS, MARSM, MARSAdamW, MARSLion


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (MARSAdamW, {}),
        (MARSAdamW, {"correction": "folded"}),
        (MARSLion, {}),
        (MARSM, {}),
    ],
)
def test_stepping_copies_on_the_cpu_is_stepping_the_parameters(
    cls: type[MARS], options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2))
    usual = copy.deepcopy(model)
    by_usual = cls(usual.parameters(), lr=0.01, **options)

    # as in docs/optimizers.md; no accelerator here, the CPU stands in for it
    masters = [nn.Parameter(p.detach().to("cpu", copy=True)) for p in model.parameters()]
    optimizer = cls(masters, lr=0.01, **options)
    for step in range(4):
        x = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
        model(x).square().mean().backward()
        for p, master in zip(model.parameters(), masters, strict=True):
            master.grad, p.grad = p.grad.to("cpu"), None
        optimizer.step()
        with torch.no_grad():
            for p, master in zip(model.parameters(), masters, strict=True):
                p.copy_(master, non_blocking=True)

        usual(x).square().mean().backward()
        by_usual.step()
        by_usual.zero_grad()
    for p, q in zip(model.parameters(), usual.parameters(), strict=True):
        assert torch.equal(p, q)
    held = [v for s in optimizer.state.values() for v in s.values()]
    assert all(value.device.type == "cpu" for value in held)

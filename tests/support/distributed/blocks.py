"""Work of the processes on weights of several matrices, each with its own way of being cut."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard

from mars_optim import MARS, param_groups
from mars_optim.experiment.tasks.gpt import GPT

from .layouts import place
from .work import whole, world_mesh

# shape, split, stacked: cuts of 2 and 4 processes go through blocks, and leave some empty
CASES: list[tuple[tuple[int, ...], Any, bool]] = [
    ((7, 5), (3, 2, 2), False),
    ((9, 4), 3, False),
    ((5, 12), ((4, 5, 3), 1), False),
    ((12, 3), ((2, 1), 0, 4), False),
    ((3, 6, 4), 2, True),
    ((2, 5, 6), ((1, 1), 1, 3), True),
    ((3, 2), (2, 1), False),
]


def draw(step: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    sizes = [0.05, 1.0, 4.0]
    return [
        (torch.randn(s, generator=generator, dtype=torch.float64) * sizes[(i + step) % 3]).to(dtype)
        for i, (s, _, _) in enumerate(CASES)
    ]


def make(params: list[Any], **options: Any) -> MARS:
    groups = [
        {"params": [p], "split": split, "stacked": stacked}
        for p, (_, split, stacked) in zip(params, CASES, strict=True)
    ]
    return MARS(groups, lr=1e-2, gamma=0.1, **options)


def steps_like_whole(layout: str, options: dict[str, Any]) -> None:
    dtype = torch.float64
    alone = [nn.Parameter(x) for x in draw(99, dtype)]
    parts: list[Any] = [nn.Parameter(place(x, layout)) for x in draw(99, dtype)]
    one, other = make(alone, **options), make(parts, **options)
    for step in range(4):
        for p, q, g in zip(alone, parts, draw(step, dtype), strict=True):
            p.grad, q.grad = g, place(g, layout)
        one.step()
        other.step()
    for p, q in zip(alone, parts, strict=True):
        torch.testing.assert_close(whole(q.detach()), p.detach(), rtol=1e-12, atol=1e-12)
        mine, its = one.state[p]["exp_avg"], other.state[q]["exp_avg"]
        torch.testing.assert_close(whole(its), mine, rtol=1e-12, atol=1e-12)
        assert other.state[q]["step"] == 4


def fully_sharded_like_separate() -> None:
    """A fused layer under FSDP2 and its three parts, as layers of their own, in one process."""
    torch.manual_seed(0)
    fused = nn.Linear(5, 7, bias=False).double()
    apart = [nn.Parameter(w.detach().clone()) for w in fused.weight.split((3, 2, 2))]
    fully_shard(fused, mesh=world_mesh())
    one = MARS(apart, lr=1e-2, rule="muon", gamma=0.1)
    other = MARS([{"params": [fused.weight], "split": (3, 2, 2)}], lr=1e-2, rule="muon", gamma=0.1)
    for step in range(4):
        x = torch.randn(8, 5, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        for optimizer, y in ((one, x @ torch.cat(apart).T), (other, fused(x))):
            optimizer.zero_grad()
            (y - 1.0).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(
        whole(fused.weight.detach()), torch.cat(apart).detach(), rtol=1e-12, atol=1e-12
    )


def a_model_of_the_pilot_like_one_process(split: str) -> list[Any]:
    """The built-in GPT at a width whose QKV two processes cut within the keys; its splits."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(GPT(vocabulary=7, context=5, layers=2, width=6, heads=2).double())
    alone, sharded = models
    for block in sharded.blocks:
        fully_shard(block, mesh=world_mesh())
    fully_shard(sharded, mesh=world_mesh())
    tokens = torch.randint(7, (4, 5), generator=torch.Generator().manual_seed(1))
    splits: list[Any] = []
    for model in models:
        optimizer = MARS(param_groups(model, rule="muon", lr=1e-2, split=split))
        splits.append({str(group["split"]) for group in optimizer.param_groups})
        for _ in range(3):
            optimizer.zero_grad()
            model(tokens).square().mean().backward()
            optimizer.step()
    for p, q in zip(alone.parameters(), sharded.parameters(), strict=True):
        torch.testing.assert_close(whole(q.detach()), p.detach(), rtol=1e-10, atol=1e-12)
    assert splits[0] == splits[1]
    return sorted(splits[0])

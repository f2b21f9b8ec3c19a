"""Work of the processes on hand-made layouts, with given gradients."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard

from mars_optim import MARS, variance_reduce
from mars_optim.optim import rules

from .work import pairs_mesh, whole, world_mesh

SHAPES = [(7, 5), (3, 9), (2, 3, 4), (12, 2), (1, 6), (5,), (1,)]

# name: whether on the mesh of pairs, placements
LAYOUTS: dict[str, tuple[bool, list[Any]]] = {
    "rows": (False, [Shard(0)]),
    "columns": (False, [Shard(-1)]),
    "repeated": (False, [Replicate()]),
    "rows in pairs, repeated": (True, [Replicate(), Shard(0)]),
    "rows over pairs, repeated within": (True, [Shard(0), Replicate()]),
    "rows over both dimensions": (True, [Shard(0), Shard(0)]),
    "rows and columns": (True, [Shard(0), Shard(-1)]),
    "FSDP over tensor parallel": (True, [_StridedShard(0, split_factor=2), Shard(0)]),
}


def place(x: Tensor, layout: str) -> DTensor:
    """Every process has the whole of ``x``; each keeps its part."""
    pairs, placements = LAYOUTS[layout]
    mesh: DeviceMesh = pairs_mesh() if pairs else world_mesh()
    everywhere = DTensor.from_local(x.detach().clone(), mesh, [Replicate()] * mesh.ndim)
    return everywhere.redistribute(mesh, placements)


def draw(step: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    sizes = [0.05, 1.0, 4.0]
    return [
        (torch.randn(s, generator=generator, dtype=torch.float64) * sizes[(i + step) % 3]).to(dtype)
        for i, s in enumerate(SHAPES)
    ]


def make_pair(
    layout: str, dtype: torch.dtype = torch.float64, **options: Any
) -> tuple[list[Any], list[Any], MARS, MARS]:
    alone = [nn.Parameter(x) for x in draw(99, dtype)]
    parts = [nn.Parameter(place(x, layout)) for x in draw(99, dtype)]
    return alone, parts, MARS(alone, **options), MARS(parts, **options)


def step_both(alone: Any, parts: Any, one: Any, other: Any, step: int, layout: str) -> None:
    for p, q, g in zip(alone, parts, draw(step, alone[0].dtype), strict=True):
        p.grad, q.grad = g, place(g, layout)
    one.step()
    other.step()


def steps_like_whole(layout: str, dtype: torch.dtype, rtol: float, options: dict[str, Any]) -> None:
    alone, parts, one, other = make_pair(layout, dtype, **options)
    for step in range(4):
        before = [q.detach().clone() for q in parts]
        step_both(alone, parts, one, other, step, layout)
        given = [place(g, layout) for g in draw(step, dtype)]
        for q, g in zip(parts, given, strict=True):
            assert torch.equal(q.grad.to_local(), g.to_local())  # only read
        moved = zip(before, parts, strict=True)
        assert all(not torch.equal(b.full_tensor(), q.full_tensor()) for b, q in moved)
    for p, q in zip(alone, parts, strict=True):
        assert q.placements == place(p, layout).placements
        torch.testing.assert_close(
            whole(q.detach()), p.detach(), rtol=rtol, atol=rtol * float(p.detach().abs().max())
        )


def wrapped_steps_like_whole(layout: str, **options: Any) -> int:
    """The number of collectives of the norms, in four steps."""
    alone = [nn.Parameter(x) for x in draw(99)]
    parts = [nn.Parameter(place(x, layout)) for x in draw(99)]
    pair = [torch.optim.SGD(some, lr=1e-2, momentum=0.9) for some in (alone, parts)]
    for optimizer in pair:
        variance_reduce(optimizer, gamma=0.1, clip=0.5, optimize_1d=True, **options)
    with mock.patch.object(distributed, "all_reduce", wraps=distributed.all_reduce) as reduced:
        for step in range(4):
            step_both(alone, parts, *pair, step, layout)
    for p, q in zip(alone, parts, strict=True):
        torch.testing.assert_close(whole(q.detach()), p.detach(), rtol=1e-12, atol=1e-12)
    return reduced.call_count


def takes_partial_gradients() -> None:
    """A gradient whose sum over the processes is still to be made, as tensor parallel leaves it."""
    alone, parts, one, other = make_pair("repeated", rule="lion", clip=0.5, optimize_1d=True)
    world = distributed.get_world_size()
    for step in range(3):
        for p, q, g in zip(alone, parts, draw(step), strict=True):
            p.grad = g
            q.grad = DTensor.from_local(g / world, world_mesh(), [Partial()])
        one.step()
        other.step()
    for p, q in zip(alone, parts, strict=True):
        torch.testing.assert_close(whole(q.detach()), p.detach(), rtol=1e-12, atol=1e-12)


def count_work(layout: str, rule: str) -> dict[str, int]:
    """Work of this process in one step for its bucket of matrices."""
    _, parts, _, other = make_pair(layout, rule=rule, clip=0.5)
    parts = parts[:5]  # the matrices
    other = MARS(parts, rule=rule, clip=0.5)
    for q, g in zip(parts, draw(0), strict=False):
        q.grad = place(g, layout)
    with (
        mock.patch.object(distributed, "all_reduce", wraps=distributed.all_reduce) as reduced,
        mock.patch.object(
            distributed, "all_to_all_single", wraps=distributed.all_to_all_single
        ) as exchanged,
        mock.patch.object(rules, "newton_schulz", wraps=rules.newton_schulz) as orthogonalised,
    ):
        other.step()
    return {
        "all_reduce": reduced.call_count,
        "all_to_all": exchanged.call_count,
        "newton_schulz": orthogonalised.call_count,
    }

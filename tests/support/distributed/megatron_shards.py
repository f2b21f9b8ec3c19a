"""Work of the processes on shards marked as Megatron's layers mark them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

from mars_optim import MARS, MARSM, MARSAdamW, variance_reduce

# shape of the whole, and what is cut of it by two processes (None: nothing)
SHAPES = [((8, 5), 0), ((3, 10), 1), ((4, 4), None), ((6,), 0), ((5,), None), ((4, 3, 2), 0)]


@contextmanager
def parallel_state(*, pipeline: int = 1, initialized: bool = True) -> Iterator[None]:
    """megatron.core.parallel_state, as much as we ask of it."""
    everyone = distributed.group.WORLD
    state = SimpleNamespace(
        model_parallel_is_initialized=lambda: initialized,
        get_tensor_model_parallel_group=lambda: everyone,
        get_expert_tensor_parallel_group=lambda: everyone,
        get_pipeline_model_parallel_world_size=lambda: pipeline,
        get_expert_model_parallel_world_size=lambda: 1,
    )
    name = "megatron.core.parallel_state"
    sys.modules[name] = state  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def cut(x: Tensor, dim: int | None) -> Tensor:
    if dim is None:
        return x.clone()
    world, rank = distributed.get_world_size(), distributed.get_rank()
    return x.chunk(world, dim)[rank].clone()


def draw(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [3 * torch.randn(shape, generator=generator, dtype=torch.float64) for shape, _ in SHAPES]


def shards() -> list[nn.Parameter]:
    parts = []
    for x, (_, dim) in zip(draw(99), SHAPES, strict=True):
        part = nn.Parameter(cut(x, dim))
        part.tensor_model_parallel = dim is not None  # type: ignore[attr-defined]
        part.partition_dim = -1 if dim is None else dim  # type: ignore[attr-defined]
        parts.append(part)
    return parts


def steps_like_whole(options: dict[str, Any], wrapped: bool) -> None:
    """Shards of two processes step as the whole does in one."""
    alone = [nn.Parameter(x) for x in draw(99)]
    parts = shards()
    with parallel_state():
        one: Any
        other: Any
        if wrapped:
            one, other = torch.optim.AdamW(alone), torch.optim.AdamW(parts)
            variance_reduce(one, **options)
            variance_reduce(other, **options)
        else:
            one, other = MARS(alone, lr=1e-2, **options), MARS(parts, lr=1e-2, **options)
        for t in range(4):
            for p, q, g, (_, dim) in zip(alone, parts, draw(t), SHAPES, strict=True):
                p.grad, q.grad = g, cut(g, dim)
            one.step()
            other.step()
            for p, q, (_, dim) in zip(alone, parts, SHAPES, strict=True):
                torch.testing.assert_close(q.detach(), cut(p.detach(), dim), rtol=0, atol=1e-11)


def blocks_like_whole() -> None:
    """Megatron's fused QKV, by groups of queries, and a block that the cut goes through."""
    splits = [((2, 1, 1), 0, 2), ((6, 4), 1), (1, 3), None, None, (1, 3)]
    weights = [i for i, (shape, _) in enumerate(SHAPES) if len(shape) > 1]
    alone = [nn.Parameter(x) for x in draw(99)]
    parts = shards()

    def groups(params: list[nn.Parameter]) -> list[dict[str, Any]]:
        return [{"params": [params[i]], "split": splits[i]} for i in weights]

    with parallel_state():
        options: dict[str, Any] = dict(rule="muon", lr=1e-2, clip=0.5, gamma=0.1)
        one, other = MARS(groups(alone), **options), MARS(groups(parts), **options)
        for t in range(4):
            for p, q, g, (_, dim) in zip(alone, parts, draw(t), SHAPES, strict=True):
                p.grad, q.grad = g, cut(g, dim)
            one.step()
            other.step()
    for p, q, (_, dim) in zip(alone, parts, SHAPES, strict=True):
        torch.testing.assert_close(q.detach(), cut(p.detach(), dim), rtol=0, atol=1e-11)


def chooses_like_whole() -> None:
    """gamma of whole tensors and of shards, in one group."""
    alone, parts = [nn.Parameter(x) for x in draw(99)], shards()
    with parallel_state():
        options: dict[str, Any] = dict(lr=1e-2, gamma="auto", optimize_1d=True)
        one, other = MARS(alone, **options), MARS(parts, **options)
        for t in range(45):
            for p, q, g, (_, dim) in zip(alone, parts, draw(t), SHAPES, strict=True):
                p.grad, q.grad = g, cut(g, dim)
            one.step()
            other.step()
        wanted, found = (float(o.param_groups[0]["gamma_now"]) for o in (one, other))
        assert found == pytest.approx(wanted, rel=1e-9)
        assert wanted != 0.025
        for p, q, (_, dim) in zip(alone, parts, SHAPES, strict=True):
            torch.testing.assert_close(q.detach(), cut(p.detach(), dim), rtol=0, atol=1e-9)


def refusals() -> None:
    """Settings that cannot be right are refused."""

    def refused(words: str, act: Callable[[], Any]) -> None:
        with pytest.raises(ValueError, match=words):
            act()

    def step(optimizer: MARS, parts: list[nn.Parameter]) -> None:
        for q, g, (_, dim) in zip(parts, draw(0), SHAPES, strict=True):
            q.grad = cut(g, dim)
        optimizer.step()

    parts = shards()
    with parallel_state():
        looped = MARSM(parts, foreach=False)
        refused("foreach=False does not take tensor-parallel", lambda: step(looped, parts))
    with parallel_state(pipeline=2):
        plain = [nn.Parameter(torch.ones(2, 2))]
        refused("each pipeline stage", lambda: MARSAdamW(plain, gamma="auto"))
    for missing in (parallel_state(initialized=False), nullcontext()):
        with missing:
            optimizer = MARSM(parts)
            before = [p.detach().clone() for p in parts]
            refused(
                "processes with its other shards are not known", partial(step, optimizer, parts)
            )
            assert all(torch.equal(p, q) for p, q in zip(parts, before, strict=True))

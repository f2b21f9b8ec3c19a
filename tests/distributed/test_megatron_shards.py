"""Megatron's tensor parallelism: a step of the shards is that of the whole tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.distributed import megatron_shards
from tests.support.distributed.ranks import Ranks

Of = Callable[[int], Ranks]

FORMS: list[dict[str, Any]] = [
    {"rule": "muon"},
    {"rule": "muon", "cautious": True},
    {"rule": "shampoo", "correction": "folded"},
    {"rule": "adamw"},
    {"rule": "adamw", "optimize_1d": True, "clip": 0.3},
    {"rule": "adamw", "foreach": True, "clip_over": "global"},
    {"rule": "adamw", "cautious": True},
    {"rule": "lion", "optimize_1d": True},
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: " ".join(map(str, form.values())))
def test_tensor_parallel_shards_step_like_the_whole(form: dict[str, Any], ranks: Of) -> None:
    ranks(2).run(megatron_shards.steps_like_whole, {"gamma": 0.1, **form}, False)


def test_gamma_of_shards_and_whole_tensors_is_that_of_the_whole(ranks: Of) -> None:
    ranks(2).run(megatron_shards.chooses_like_whole)


def test_a_wrapped_optimizer_clips_the_whole_tensor(ranks: Of) -> None:
    ranks(2).run(megatron_shards.steps_like_whole, {"gamma": 0.1, "optimize_1d": True}, True)


def test_what_shards_cannot_do_is_refused_before_anything_moves(ranks: Of) -> None:
    ranks(2).run(megatron_shards.refusals)


def test_blocks_of_shards_step_like_those_of_the_whole(ranks: Of) -> None:
    ranks(2).run(megatron_shards.blocks_like_whole)

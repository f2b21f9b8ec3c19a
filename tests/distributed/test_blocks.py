"""Sharded weights of several matrices: a step is that of the whole, wherever the cuts are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.distributed import blocks, layouts
from tests.support.distributed.ranks import Ranks

Of = Callable[[int], Ranks]


@pytest.mark.slow_but_one(among=8)
@pytest.mark.parametrize("options", [{"rule": "muon"}, {"rule": "shampoo", "clip": 0.5}], ids=str)
@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_blocks_of_shards_step_like_those_of_the_whole(
    layout: str, options: dict[str, Any], ranks: Of
) -> None:
    ranks(4).run(blocks.steps_like_whole, layout, options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"cautious": True},
        {"foreach": False},
        {"clip": 0.5, "clip_over": "global"},
        {"correction": "folded"},
    ],
    ids=str,
)
def test_options_mean_the_same_for_blocks_of_shards(options: dict[str, Any], ranks: Of) -> None:
    ranks(2).run(blocks.steps_like_whole, "rows", {"rule": "muon", **options})


def test_fused_layer_under_fsdp_steps_like_separate_layers(ranks: Of) -> None:
    ranks(2).run(blocks.fully_sharded_like_separate)


@pytest.mark.parametrize(("split", "found"), [("fused", ["3", "None"]), ("heads", ["6", "None"])])
def test_split_of_a_models_config_holds_under_fsdp(split: str, found: list[str], ranks: Of) -> None:
    assert ranks(2).run(blocks.a_model_of_the_pilot_like_one_process, split) == [found, found]

"""FSDP1's flat parameters and ZeroRedundancyOptimizer: right, or refused before the first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.distributed import flattened
from tests.support.distributed.ranks import Ranks

both_ways = pytest.mark.parametrize(
    "use_orig_params", [False, True], ids=["flat parameters", "views of them"]
)


@both_ways
@pytest.mark.parametrize("choice", flattened.RIGHT)
def test_fsdp1_without_a_clip_equals_one_process(
    choice: str, use_orig_params: bool, ranks: Callable[[int], Ranks]
) -> None:
    ranks(2).run(flattened.fsdp1_equals_one_process, choice, use_orig_params)


@both_ways
@pytest.mark.parametrize("choice", flattened.WRONG)
def test_fsdp1_is_refused_in_one_line_where_pieces_step_wrongly(
    choice: str, use_orig_params: bool, ranks: Callable[[int], Ranks]
) -> None:
    _, words = flattened.WRONG[choice]
    for error in ranks(2).run(flattened.fsdp1_is_refused, choice, use_orig_params):
        assert words in error
        assert "flat pieces of tensors (FSDP1, DeepSpeed ZeRO)" in error
        assert "use" in error
        assert "\n" not in error


def test_groups_made_before_fsdp1_flattening_fail_at_first_step(
    ranks: Callable[[int], Ranks],
) -> None:
    for error in ranks(2).run(flattened.groups_made_before_flattening_are_refused):
        assert "flat pieces of tensors (FSDP1, DeepSpeed ZeRO), and clip=1 needs the norm" in error


def test_fsdp1_without_sharding_keeps_clip_and_vectors(
    ranks: Callable[[int], Ranks],
) -> None:
    ranks(2).run(flattened.replicas_of_fsdp1_keep_whole_tensors)


@pytest.mark.parametrize("choice", flattened.DEALT)
def test_zero_redundancy_optimizer_equals_replicas_and_resumes(
    choice: str, ranks: Callable[[int], Ranks]
) -> None:
    ranks(2).run(flattened.dealt_out_equals_replicas, choice)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give it param_groups(model, names=False), or optimize_1d=True"),
        ({"optimize_1d": True, "gamma": "auto"}, "'auto' under ZeroRedundancyOptimizer would"),
        (
            {"optimize_1d": True, "clip_over": "global"},
            "clip_over='global' under ZeroRedundancyOptim",
        ),
    ],
    ids=["split", "auto", "clip over all"],
)
def test_zero_redundancy_refuses_options_needing_whole_groups(
    options: dict[str, Any], words: str, ranks: Callable[[int], Ranks]
) -> None:
    for error in ranks(2).run(flattened.dealt_out_is_refused, options):
        assert words in error
        assert "\n" not in error


def test_gamma_turned_auto_under_zero_redundancy_is_refused(
    ranks: Callable[[int], Ranks],
) -> None:
    for error in ranks(2).run(flattened.gamma_edited_later_is_refused):
        assert "'auto' under ZeroRedundancyOptimizer would choose a different gamma" in error


def test_variance_reduce_works_only_inside_zero_redundancy(
    ranks: Callable[[int], Ranks],
) -> None:
    for error in ranks(2).run(flattened.wrapping_the_outside_is_refused):
        assert "call variance_reduce(optimizer.optim)" in error
    ranks(2).run(flattened.wrapping_the_inside_equals_replicas)

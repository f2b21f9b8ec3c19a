"""FSDP2 with real processes: every rule and correction takes the steps of a single process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.distributed import work
from tests.support.distributed.ranks import Ranks


@pytest.mark.slow_but_one(among=5)
@pytest.mark.parametrize("correction", work.CORRECTIONS)
@pytest.mark.parametrize("rule", work.RULES)
@pytest.mark.parametrize("world", [2, 4])
def test_uneven_and_empty_shards_step_like_one_process(
    world: int, rule: str, correction: str, ranks: Callable[[int], Ranks]
) -> None:
    ranks(world).run(work.equals_one_process, work.shard_all, rule, correction, {})


@pytest.mark.slow_but_one(among=5)
@pytest.mark.parametrize("correction", work.CORRECTIONS)
@pytest.mark.parametrize("rule", work.RULES)
def test_mixed_meshes_and_plain_parameters_step_like_one_process(
    rule: str, correction: str, ranks: Callable[[int], Ranks]
) -> None:
    ranks(4).run(work.equals_one_process, work.shard_mixed, rule, correction, {})


@pytest.mark.parametrize("correction", work.CORRECTIONS)
def test_offloaded_to_the_cpu_it_steps_like_one_process(
    correction: str, ranks: Callable[[int], Ranks]
) -> None:
    ranks(2).run(work.equals_one_process, work.shard_offloaded, "adamw", correction, {})


def test_exact_form_accumulates_over_micro_batches(ranks: Callable[[int], Ranks]) -> None:
    ranks(2).run(work.accumulates_like_one_process, True)


def test_exact_form_refuses_accumulation_without_gradient_sync(
    ranks: Callable[[int], Ranks],
) -> None:
    with pytest.raises(AssertionError, match="set_requires_gradient_sync"):
        ranks(2).run(work.accumulates_like_one_process, False)


@pytest.mark.slow
@pytest.mark.parametrize("correction", ["approx", "exact"])
def test_overflow_in_one_shard_is_skipped_everywhere(
    correction: str, ranks: Callable[[int], Ranks]
) -> None:
    ranks(2).run(work.skips_overflows_like_one_process, correction)

"""DistributedDataParallel, whose gradients are views of memory that it uses again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.distributed import replicas, work
from tests.support.distributed.ranks import Ranks


@pytest.mark.slow_but_one(among=5)
@pytest.mark.parametrize("set_to_none", [False, True], ids=["zeroed", "set to None"])
@pytest.mark.parametrize("correction", work.CORRECTIONS)
@pytest.mark.parametrize("rule", work.RULES)
def test_replicas_with_bucket_views_step_like_one_process(
    rule: str, correction: str, set_to_none: bool, ranks: Callable[[int], Ranks]
) -> None:
    ranks(2).run(replicas.steps_like_one_process, rule, correction, set_to_none)


@pytest.mark.parametrize("without_sync", [False, True], ids=["synchronised", "no_sync"])
@pytest.mark.parametrize("set_to_none", [False, True], ids=["zeroed", "set to None"])
def test_exact_form_accumulates_micro_batches_in_bucket_views(
    set_to_none: bool, without_sync: bool, ranks: Callable[[int], Ranks]
) -> None:
    ranks(2).run(replicas.accumulates_like_one_process, set_to_none, without_sync)

"""torch.distributed.checkpoint: what is saved by some processes goes on in as many, or others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.distributed import checkpoints, work
from tests.support.distributed.ranks import Ranks

Of = Callable[[int], Ranks]


@pytest.mark.slow_but_one(among=12)
@pytest.mark.parametrize("correction", work.CORRECTIONS)
@pytest.mark.parametrize("rule", work.RULES)
def test_resumed_run_has_the_bits_of_the_one_that_went_on(
    rule: str, correction: str, ranks: Of, tmp_path: Path
) -> None:
    arguments = (str(tmp_path / "saved"), rule, correction)
    went_on = ranks(2).run(checkpoints.save_and_go_on, *arguments)
    resumed = ranks(2).run(checkpoints.resume, *arguments)
    assert checkpoints.same_bits(went_on[0], resumed[0])


@pytest.mark.slow
@pytest.mark.slow_but_one(among=3)
@pytest.mark.parametrize("correction", ["approx", "exact"])
@pytest.mark.parametrize("rule", ["adamw", "muon"])
@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2)])
def test_checkpoint_goes_on_in_another_number_of_processes(
    before: int, after: int, rule: str, correction: str, ranks: Of, tmp_path: Path
) -> None:
    arguments = (str(tmp_path / "saved"), rule, correction)
    ranks(before).run(checkpoints.save_and_go_on, *arguments)
    ranks(after).run(checkpoints.resume, *arguments)

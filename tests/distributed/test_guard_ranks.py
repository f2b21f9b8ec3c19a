"""A guard in several processes: what one rank sees, all act on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.distributed import guarded
from tests.support.distributed.ranks import Ranks


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("sharded", [False, True], ids=["DDP", "FSDP2"])
def test_all_ranks_roll_back_to_one_step_if_one_sees_trouble(
    sharded: bool, where: str, ranks: Callable[[int], Ranks], tmp_path: Path
) -> None:
    folder = str(tmp_path) if where == "disk" else None
    first, second = ranks(2).run(guarded.goes_back_together, sharded, folder)
    assert first == second
    assert first[:2] == (5, 12)
    if folder:
        assert {p.name.split(".")[1] for p in tmp_path.iterdir()} == {"rank0", "rank1"}


@pytest.mark.parametrize(("world", "lost", "step"), [(2, False, 10), (2, True, 5), (3, False, 12)])
def test_resumed_ranks_go_back_to_a_step_that_all_have(
    world: int, lost: bool, step: int, ranks: Callable[[int], Ranks], tmp_path: Path
) -> None:
    folder = str(tmp_path)
    state, *_ = ranks(2).run(guarded.goes_on_in_other_ranks, folder, None, False)[0]
    found = ranks(world).run(guarded.goes_on_in_other_ranks, folder, state, lost)
    assert [back for _, back, _, _ in found] == [step] * world
    assert all(ends == found[0][3] for *_, ends in found)
    assert all(clean for _, _, clean, _ in found)


def test_ranks_keep_what_all_have_if_one_disk_is_full(
    ranks: Callable[[int], Ranks], tmp_path: Path
) -> None:
    first, second = ranks(2).run(guarded.has_a_full_disk_on_one_rank, str(tmp_path))
    assert first[0] == second[0] == 5
    assert first[1] == ["step-000000000"] * 2 + ["step-000000005"] * 2

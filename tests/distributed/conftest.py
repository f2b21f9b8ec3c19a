from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.distributed.ranks import Ranks


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Ranks]]:
    """The processes of a world size: started at first use, started anew after a failure."""
    started: dict[int, Ranks] = {}

    def of(world: int) -> Ranks:
        if world not in started or not started[world].alive:
            started[world] = Ranks(world, tmp_path_factory.mktemp("ranks"))
        return started[world]

    yield of
    for some in started.values():
        some.stop()

"""DeepSpeed's ZeRO 1, 2 and 3 in two gloo processes: right element by element, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.distributed import ranks as processes
from tests.support.distributed.ranks import Ranks

from ..test_frameworks_page import block
from . import zero_ranks

pytest.importorskip("deepspeed", reason="deepspeed is not installed: make test-hosts")
pytestmark = pytest.mark.filterwarnings("ignore")  # the host's own


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    processes.TIMEOUT = 200.0  # importing it takes a while
    started = Ranks(2, tmp_path_factory.mktemp("zero"))
    yield started
    started.stop()


@pytest.mark.parametrize("choice", zero_ranks.RIGHT)
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_without_a_clip_it_trains_like_one_process(stage: int, choice: str, ranks: Ranks) -> None:
    ranks.run(zero_ranks.trains_like_one_process, stage, choice)


@pytest.mark.parametrize("choice", ["adamw", "wrapped"])
@pytest.mark.parametrize("stage", [1, 3])
def test_it_resumes_from_its_own_checkpoint_to_the_same_bits(
    stage: int, choice: str, ranks: Ranks, tmp_path: Path
) -> None:
    ranks.run(zero_ranks.resumes_to_the_same_bits, stage, choice, str(tmp_path))


def test_the_lines_of_the_page_run(ranks: Ranks) -> None:
    ranks.run(zero_ranks.runs_the_page, block("DeepSpeed"))


@pytest.mark.parametrize("choice", zero_ranks.WRONG)
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_what_is_wrong_of_a_piece_is_refused_before_a_step(
    stage: int, choice: str, ranks: Ranks
) -> None:
    _, words = zero_ranks.WRONG[choice]
    for error, unmoved in ranks.run(zero_ranks.refuses, stage, choice):
        assert words in error
        assert "DeepSpeed ZeRO" in error
        assert "\n" not in error
        assert unmoved

"""DeepSpeed ZeRO (a stand-in): right element by element, or refused before the first step."""

from __future__ import annotations

import pytest
import torch

from tests.support.toy import batches, make_toy, train_by_hand
from tests.support.zero import ZeroRank, gather

from .real.zero_ranks import RIGHT, WRONG

stages = pytest.mark.parametrize("stage", [1, 3])


@pytest.mark.parametrize("choice", RIGHT)
@pytest.mark.parametrize("world", [1, 2, 5])
@stages
def test_without_a_clip_pieces_are_stepped_like_their_tensors(
    stage: int, world: int, choice: str
) -> None:
    ranks = [
        ZeroRank(make_toy(), RIGHT[choice], stage=stage, rank=rank, world=world)
        for rank in range(world)
    ]
    for batch in batches(4):
        for rank in ranks:
            rank.step(batch)
        gather(ranks)
    alone = make_toy()
    train_by_hand(alone, RIGHT[choice](list(alone.parameters())), batches(4))
    for found, p in zip(ranks[0].model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(found, p, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("choice", WRONG)
@pytest.mark.parametrize("world", [1, 2])
@stages
def test_option_wrong_for_zero_pieces_is_refused_before_a_step(
    stage: int, world: int, choice: str
) -> None:
    make, words = WRONG[choice]
    rank = ZeroRank(make_toy(), make, stage=stage, rank=world - 1, world=world)
    before = [piece.detach().clone() for piece in rank.pieces]
    with pytest.raises((ValueError, RuntimeError), match="DeepSpeed ZeRO") as caught:
        rank.step(batches(1)[0])
    assert words in str(caught.value)
    assert "use" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(p, b) for p, b in zip(rank.pieces, before, strict=True))
    assert not any(rank.optimizer.state.values())


def test_constructor_refuses_parameters_already_cut_by_zero_3() -> None:
    """``deepspeed.zero.Init`` leaves shapes of (0,), so nothing looks like a matrix."""
    model = make_toy()
    for p in model.parameters():
        p.ds_id = 0
        p.data = torch.empty(0)
    for choice in ("clip", "muon", "auto"):
        with pytest.raises(ValueError, match=r"DeepSpeed ZeRO.*the AdamW of vectors.*clip=None"):
            WRONG[choice][0](list(model.parameters()))
    RIGHT["adamw"](list(model.parameters()))

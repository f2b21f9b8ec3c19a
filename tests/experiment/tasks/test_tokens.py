"""Windows over many shards are those over one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.experiment.tasks.token_map import Tokens


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(lambda s: sum(s) > 3),
    dtype=st.sampled_from([torch.uint8, torch.uint16, torch.int32]),
    data=st.data(),
)
def test_a_window_across_shards_is_that_of_one_row(
    sizes: list[int], dtype: torch.dtype, data: st.DataObject
):
    row = torch.arange(sum(sizes)) * 7 % 251
    tokens = Tokens([part.to(dtype) for part in row.split(sizes)])
    length = data.draw(st.integers(1, len(row)))
    offsets = data.draw(st.lists(st.integers(0, len(row) - length), min_size=1, max_size=5))
    windows = tokens.windows(torch.tensor(offsets), length)
    assert len(tokens) == len(row)
    assert windows.dtype == torch.int64
    assert torch.equal(windows, torch.stack([row[at : at + length] for at in offsets]))


@pytest.mark.parametrize("token", [0, 40_000, 65_535])
def test_the_upper_half_of_uint16_stays_what_it_is(token: int):
    tokens = Tokens([torch.full((5,), token, dtype=torch.uint16)])
    assert tokens.windows(torch.tensor([1]), 3).tolist() == [[token] * 3]

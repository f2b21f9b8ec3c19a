"""Others' results are shown by nearness, and neither side is left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.experiment.analysis.published import NOTHING, nearest, published


def test_every_result_names_its_source_and_its_doubts():
    found = published()
    assert len(found) > 20
    for result in found:
        assert result.who
        assert result.note
        assert result.outcome in ("better", "no gain", "worse")
        assert result.parameters > 1e7
        assert result.tokens > 1e9
        assert result.batch_tokens > 1e4


def test_the_outcome_follows_from_the_difference():
    for result in published():
        if result.difference is not None:
            better, worse = result.difference < -NOTHING, result.difference > NOTHING
            expected = "better" if better else "worse" if worse else "no gain"
            assert result.outcome == expected


@given(parameters=st.floats(1e4, 1e12), batch=st.floats(1e2, 1e8), count=st.integers(2, 6))
def test_gains_and_their_absence_are_both_shown_nearest_first(
    parameters: float, batch: float, count: int
):
    found = nearest(parameters, batch, count)
    assert len(found) == count
    assert {m.result.outcome == "better" for m in found} == {True, False}
    distances = [m.distance for m in found]
    assert distances == sorted(distances)


def test_a_job_like_a_published_one_finds_it():
    match = nearest(355e6, 491520)[0]
    assert match.result.model == "GPT-2 medium, OpenWebText"
    assert (match.size_factor, match.batch_factor) == pytest.approx((1.0, 1.0))
    assert match.result.difference == -0.055

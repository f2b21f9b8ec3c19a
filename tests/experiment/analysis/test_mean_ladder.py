"""One ladder for all seeds: exact where seeds differ by a level, and what its noise adds."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.experiment.analysis.ladder import tokens_to_reach
from mars_optim.experiment.analysis.mean_ladder import ladder_error, mean_ladder

UNIT = 1000
TOKENS = (500, 1000, 1500)


def law(tokens: float, level: float = 0.0) -> float:
    return 3.0 + level - 0.4 * math.log(tokens / UNIT) + 0.05 * math.log(tokens / UNIT) ** 2


def ladder(level: float = 0.0, noise: float = 0.0, seed: object = 0) -> dict[int, float]:
    rng = random.Random(repr(seed))
    return {t: law(t, level) + rng.gauss(0.0, noise) for t in TOKENS}


@given(levels=st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=5))
def test_seeds_that_differ_by_a_level_have_their_own_ladder(levels: list[float]) -> None:
    whole = [ladder(level) for level in levels[:2]]
    found = mean_ladder([*whole, *({UNIT: law(UNIT, level)} for level in levels[2:])], UNIT)
    assert found is not None
    for level in levels:
        assert dict(found.of(law(UNIT, level))) == pytest.approx(ladder(level))
    assert found.sd == pytest.approx(0.0, abs=1e-12)
    assert found.seeds == 2


def test_a_seed_without_the_common_budget_tells_nothing() -> None:
    lost = {t: 9.0 for t in TOKENS if t != UNIT}
    # by their text: their sd is NaN, which since Python 3.13 no dataclass equals
    assert str(mean_ladder([lost, ladder()], UNIT)) == str(mean_ladder([ladder()], UNIT))
    assert mean_ladder([lost, {UNIT: 3.0}], UNIT) is None


def test_a_diverged_rung_is_left_out_of_its_own_mean_only() -> None:
    short = {t: y for t, y in ladder(0.5).items() if t != 1500}
    found = mean_ladder([short, ladder()], UNIT)
    assert found is not None
    assert dict(found.of(3.0)) == pytest.approx(ladder())


def test_one_ladder_does_not_tell_its_noise() -> None:
    found = mean_ladder([ladder()], UNIT)
    assert found is not None
    assert math.isnan(found.sd)
    assert ladder_error(found, [(3.0, 2.9)], 0.01) > 0.0
    assert ladder_error(found, [(3.0, 2.9)], math.nan) == 0.0


def test_where_nothing_is_saved_the_ladder_adds_no_error() -> None:
    found = mean_ladder([ladder(noise=0.02, seed=i) for i in range(2)], UNIT)
    assert found is not None
    assert ladder_error(found, [(3.0, 3.0)], 0.02) == pytest.approx(0.0, abs=1e-12)
    near, far = (ladder_error(found, [(3.0, 3.0 - d)], 0.02) for d in (0.02, 0.1))
    assert 0.0 < near < far


@pytest.mark.parametrize("end", [500, 1500])
def test_an_end_of_the_ladder_moved_by_noise_adds_error(end: int) -> None:
    found = mean_ladder([ladder(noise=0.02, seed=i) for i in range(2)], UNIT)
    assert found is not None
    beyond = 0.002 if end == 500 else -0.002
    last = dict(found.of(3.0))[end]
    assert tokens_to_reach(found.of(3.0), last + beyond).bound
    assert ladder_error(found, [(3.0, last + beyond)] * 3, 0.02) > 0.01
    assert ladder_error(found, [(3.0, last + 100 * beyond)] * 3, 0.02) == 0.0


def test_a_rung_that_one_seed_has_is_less_certain() -> None:
    whole = [ladder(), ladder(0.5)]
    lost = [ladder(), {t: y for t, y in ladder(0.5).items() if t != 1500}]
    both, one = (mean_ladder(ladders, UNIT) for ladders in (whole, lost))
    assert both is not None
    assert one is not None
    near = [(3.0, law(1500 - 1))]  # read off the rung alone
    errors = [ladder_error(found, near, 0.001) for found in (both, one)]
    assert errors[1] / errors[0] == pytest.approx(math.sqrt(2), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("gain", [0.08, 0.03, -0.1])
def test_the_error_is_the_spread_of_ratios_on_noisy_ladders(gain: float) -> None:
    noise, pairs = 0.01, [(3.0, 3.0 - gain)]
    ratios, errors = [], []
    for draw in range(400):
        found = mean_ladder([ladder(noise=noise, seed=(draw, i)) for i in range(3)], UNIT)
        assert found is not None
        ratios.append(math.log(tokens_to_reach(found.of(3.0), 3.0 - gain).tokens))
        errors.append(ladder_error(found, pairs, 0.0) ** 2)
    spread, told = statistics.stdev(ratios), math.sqrt(statistics.fmean(errors))
    assert told == pytest.approx(spread, rel=0.2)

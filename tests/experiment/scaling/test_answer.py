from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from mars_optim.experiment.scaling.answer import Forecast, as_json, forecast, lines
from mars_optim.experiment.scaling.rows import Row
from mars_optim.experiment.scaling.table import table
from tests.support.scaling_worlds import LENGTHS, SIZES, rows


def told(these: Sequence[Row], size: float = 8e8, length: float = 2.0) -> Forecast:
    return forecast(table(these, "base"), size, 20 * length * size)


@pytest.fixture(scope="module")
def two_arms() -> Forecast:
    return told(rows({"better": 0.3, "worse": -0.2}, fade=0.3))


def test_the_intervals_hold_the_true_ratios(two_arms: Forecast) -> None:
    for name, gain in (("better", 0.3 * 8**-0.3), ("worse", -0.2 * 8**-0.3)):
        ratio = two_arms.arms[name].token_ratio
        assert ratio is not None
        assert ratio.low95 < ratio.low80 < ratio.mean < ratio.high80 < ratio.high95
        assert ratio.low95 < math.exp(gain) < ratio.high95
        assert ratio.high95 < 1.4 * ratio.low95


def test_the_next_run_is_cheaper_than_the_target_and_narrows(two_arms: Forecast) -> None:
    for arm in two_arms.arms.values():
        run = arm.next_run
        assert run is not None
        assert run.flop == 12 * run.parameters * run.tokens
        assert run.flop < 12 * two_arms.parameters * two_arms.tokens
        assert 0 < run.narrows < 1


def test_json_has_a_ratio_or_a_refusal(two_arms: Forecast) -> None:
    data = as_json(two_arms)
    assert data["target"] == {"parameters": 8e8, "tokens": 3.2e10}
    assert set(data["arms"]["better"]) == {"token_ratio", "next_run"}
    refused = as_json(told(rows({"arm": 0.2}), 1e11))
    assert set(refused["arms"]["arm"]) == {"refusal", "next_run"}


def test_a_target_much_longer_than_the_runs_is_cautioned(two_arms: Forecast) -> None:
    assert two_arms.longer == pytest.approx(2.0 / 8.0)
    assert "sign" not in str(lines(two_arms))
    assert "5 times the tokens per parameter" in lines(replace(two_arms, longer=5.0))[-1]


@pytest.mark.slow
def test_another_unit_of_loss_changes_nothing(two_arms: Forecast) -> None:
    these = rows({"better": 0.3, "worse": -0.2}, fade=0.3)
    bits = [Row(r.arm, r.parameters, r.tokens, r.loss / math.log(2)) for r in these]
    other = told(bits).arms["better"].token_ratio
    mine = two_arms.arms["better"].token_ratio
    assert mine is not None
    assert other is not None
    assert other.low95 == pytest.approx(mine.low95, rel=1e-6)


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    ("sizes", "lengths", "target", "words"),
    [
        (SIZES[:1], LENGTHS, 2e8, ["share one size", "within 1.25 times"]),
        (SIZES[:2], LENGTHS, 5e8, ["2 sizes", "within 2 times", "2.5 times"]),
        (SIZES, LENGTHS[:1], 8e8, ["one budget at each size", "two budgets"]),
        (SIZES, LENGTHS, 1e10, ["3 sizes", "within 8 times", "25 times"]),
        (SIZES, LENGTHS, 1e6, ["100 times"]),
    ],
    ids=["one size", "two sizes", "one budget", "far", "small"],
)
def test_a_design_that_cannot_tell_is_refused_and_mended(
    sizes: Sequence[float], lengths: Sequence[float], target: float, words: list[str]
) -> None:
    found = told(rows({"arm": 0.2}, sizes=sizes, lengths=lengths), target).arms["arm"]
    assert found.token_ratio is None
    assert found.refusal is not None
    assert all(word in found.refusal for word in words)
    if target > sizes[0]:
        assert found.next_run is not None
        mended = found.next_run.parameters not in sizes
        assert mended or "budget" in words[0] or len(sizes) > 2


@pytest.mark.slow
def test_few_cells_of_an_arm_and_long_targets_are_refused() -> None:
    these = rows({"arm": 0.2, "brm": 0.1})
    few = [r for r in these if r.arm != "brm" or (r.parameters == 1e8 and r.tokens < 5e9)]
    found = told(few).arms
    assert found["arm"].token_ratio
    assert "brm has 2 cells, and at least 3 are needed" in str(found["brm"].refusal)
    assert "more than 8 times" in str(told(these, 8e8, 100).arms["arm"].refusal)


@pytest.mark.slow
def test_losses_that_say_nothing_are_refused() -> None:
    found = told(rows({"arm": 0.2}, noise=0.3, lengths=LENGTHS[:2]), 3.2e9).arms["arm"]
    assert "says nothing" in str(found.refusal) or "never reach" in str(found.refusal)


@pytest.mark.slow
def test_seeds_narrow_the_interval() -> None:
    def width(seeds: int) -> float:
        ratio = told(rows({"arm": 0.2}, noise=0.004, seeds=seeds)).arms["arm"].token_ratio
        assert ratio is not None
        return math.log(ratio.high95 / ratio.low95)

    assert width(5) < 0.8 * width(0)


def test_the_terminal_says_what_the_interval_is_of(two_arms: Forecast) -> None:
    text = "\n".join(lines(two_arms))
    assert "one more run of each" in text
    assert "better" in text
    assert "narrows it most" in text
    assert "no forecast: " in "\n".join(lines(told(rows({"arm": 0.2}), 1e11)))

"""How wide the good range of learning rates is, and where it is not known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.experiment.analysis import analyse
from mars_optim.experiment.analysis.sensitivity import WITHIN, range_below
from mars_optim.experiment.plan.plan import SensitivityPlan
from mars_optim.experiment.plan.plan_file import plan_toml
from mars_optim.experiment.report.messages import LANGS, Messages
from mars_optim.experiment.report.sections.sensitivity import picture
from mars_optim.files import write_text
from tests.support.runs_by_hand import PLAN, write_comparison, write_run, write_tuning
from tests.support.scored_pilot import COMMAND, METRIC, write_scored


def test_lr_range_ends_where_interpolated_loss_meets_the_limit():
    found = range_below({1.0: 4.0, 2.0: 3.0, 4.0: 5.0}, 3.5)
    assert found.low == pytest.approx(2 / 2**0.5)
    assert found.high == pytest.approx(2 * 2**0.25)
    assert found.factor == pytest.approx(2**0.75)
    assert not found.censored


def test_lr_range_at_an_edge_of_the_trials_is_a_lower_bound():
    found = range_below({1.0: 3.2, 2.0: 3.0, 4.0: 5.0}, 3.5)
    assert (found.low, found.low_bound, found.high_bound) == (1.0, "at most", "")
    found = range_below({2.0: 3.0, 4.0: 3.1}, 3.5)
    assert (found.low, found.high) == (2.0, 4.0)
    assert (found.low_bound, found.high_bound) == ("at most", "at least")
    assert found.censored


def test_lr_range_beside_a_diverged_run_ends_at_last_trained_lr():
    found = range_below({1.0: 4.0, 2.0: 3.0, 4.0: None, 8.0: 3.1}, 3.5)
    assert (found.high, found.high_bound, found.diverged_above) == (2.0, "at least", True)


def test_a_good_rate_beyond_a_bad_one_is_not_part_of_the_range():
    found = range_below({1.0: 3.0, 2.0: 5.0, 4.0: 3.1}, 3.5)
    assert found.high < 2.0


@given(
    width=st.floats(0.05, 2),
    best=st.floats(-0.5, 0.5),
    limit=st.floats(0.001, 0.3),
)
def test_on_a_smooth_valley_it_never_claims_more_than_there_is(
    width: float, best: float, limit: float
):
    trials = {2.0**i: 3.0 + width * (i - best) ** 2 for i in range(-6, 7)}
    bottom = min(trials.values())
    found = range_below(trials, bottom + limit)
    half = math.sqrt((bottom - 3.0 + limit) / width)  # where the valley itself meets the limit
    assert math.log2(found.high) <= max(best + half, 0) + 1e-9
    assert math.log2(found.low) >= min(best - half, 0) - 1e-9


def test_lines_show_the_tuning_runs_of_every_arm_side_by_side(tmp_path: Path):
    write_comparison(tmp_path, {})
    write_tuning(tmp_path, "adamw", {1e-3: 3.0, 2e-3: 3.02, 4e-3: 4.0})
    write_tuning(tmp_path, "mars-adamw", {1e-3: 3.5, 2e-3: 2.9, 4e-3: 2.95, 8e-3: None})
    adamw, mars = analyse(tmp_path).sensitivity
    assert (adamw.arm, adamw.gamma, adamw.best) == ("adamw", 0.0, 3.0)
    assert adamw.points == ((1e-3, 3.0), (2e-3, 3.02), (4e-3, 4.0))
    assert adamw.beats_baseline is None
    assert adamw.safe == range_below(dict(adamw.points), 3.0 + 3.0 * WITHIN)
    assert (mars.arm, mars.gamma) == ("mars-adamw", 0.025)
    assert mars.beats_baseline == range_below(dict(mars.points), 3.0)
    assert mars.beats_baseline.diverged_above


def test_sensitivity_to_gamma_changes_neither_tuning_nor_verdict(tmp_path: Path):
    write_comparison(tmp_path, {})
    trials = {1e-3: 3.5, 2e-3: 2.9, 4e-3: 2.95}
    write_tuning(tmp_path, "mars-adamw", trials)
    before = analyse(tmp_path)
    plan = replace(PLAN, sensitivity=SensitivityPlan(gammas=(0.05,)))
    write_text(tmp_path / "plan.toml", plan_toml(plan))
    other = replace(plan, arm={**plan.arm})
    other.arm["mars-adamw"] = replace(plan.arm["mars-adamw"], gamma=0.05)
    write_run(tmp_path, "mars-adamw", 2.0, purpose="sensitivity", lr=2e-3, plan=other)
    write_run(tmp_path, "mars-adamw", 2.8, purpose="sensitivity", lr=8e-3, plan=plan)
    after = analyse(tmp_path)
    assert [(line.gamma, len(line.points)) for line in after.sensitivity] == [(0.025, 4), (0.05, 1)]
    assert after.candidate.trials == before.candidate.trials
    assert after.verdict == before.verdict


@pytest.mark.parametrize("lang", LANGS)
def test_no_gamma_is_shown_of_a_commands_optimizer(tmp_path: Path, lang: str):
    lags = {1: 0.0, 2: 0.01, 3: -0.01}
    write_scored(tmp_path, {"adamw": lags, "mars-adamw": lags}, *METRIC, task=COMMAND)
    found = analyse(tmp_path)
    assert [line.gamma for line in found.sensitivity] == [None, None]
    shown = picture(found, Messages(lang))  # type: ignore[arg-type]
    assert "\u03b3" not in shown.text
    assert [row[1].text for row in shown.data.rows] == ["\u2014", "\u2014"]


def test_an_arm_that_only_diverged_has_no_range(tmp_path: Path):
    write_comparison(tmp_path, {})
    write_tuning(tmp_path, "mars-adamw", {1e-3: None, 2e-3: None})
    (mars,) = analyse(tmp_path).sensitivity
    assert (mars.best, mars.safe, mars.beats_baseline) == (None, None, None)

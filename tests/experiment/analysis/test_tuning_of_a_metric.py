"""More than the rate is tuned by what decides: another metric, or the time to a target."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mars_optim.experiment.analysis import Analysis, analyse
from mars_optim.experiment.analysis.best_of import Tuned
from mars_optim.experiment.analysis.importances import importances
from mars_optim.experiment.analysis.trial_scores import losses_of, trial_runs
from mars_optim.experiment.records import read_runs
from mars_optim.experiment.report import write_report
from tests.support.designed_pilot import designed_plan, write_designed
from tests.support.scored_pilot import IMAGES, METRIC, UNIT

ARMS = ("arms=['adamw', 'mars-adamw']", *IMAGES)
TARGET = (*METRIC, "decision.target=0.5")  # reached by a run that is late by less than 0.5


def analysed(out: Path, *sets: str) -> Analysis:
    write_designed(out, designed_plan(*ARMS, *sets, trials=16))
    return analyse(out)


@pytest.fixture(scope="module")
def of_metric(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Analysis]:
    out = tmp_path_factory.mktemp("metric") / "pilot"
    return out, analysed(out, *METRIC)


@pytest.fixture(scope="module")
def to_target(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Analysis]:
    out = tmp_path_factory.mktemp("target") / "pilot"
    return out, analysed(out, *TARGET)


def tunings(analysis: Analysis) -> list[Tuned]:
    found = [arm.tuned for arm in analysis.arms if arm.tuned]
    assert len(found) == 2
    return found


def page(out: Path, analysis: Analysis) -> tuple[str, dict[str, Any]]:
    _, markdown, verdict = write_report(analysis, out)
    return markdown.read_text().replace("\\", ""), json.loads(verdict.read_text())["tuning"]


def test_the_trial_of_the_highest_accuracy_is_compared(of_metric: tuple[Path, Analysis]):
    out, analysis = of_metric
    for tuning in tunings(analysis):
        ends = [end for _, end in tuning.trials if end is not None]
        assert 0.5 < max(ends) < 0.7  # accuracies, not costs
        best = dict(tuning.trials)[tuning.chosen or ()]
        assert best == max(ends)
        assert tuning.best[0].loss == pytest.approx(ends[0])
        means = [at.loss for at in tuning.best if at.loss is not None]
        assert means == sorted(means)
        low, high = tuning.whole.low_high(0.95) or (0, 0)
        assert low < max(ends) + 0.01
        assert low < high
    text, data = page(out, analysis)
    assert "The trial of the best accuracy was chosen" in text
    assert "nats" not in text.split("Cost and gain of tuning")[1].split("## ")[0]
    assert len(data["verdict_by_trials"]) == 5
    assert data["verdict_by_trials"][-1]["verdict"] == analysis.verdict.decision == "go"


def test_the_choice_is_in_the_interval_of_a_metric(of_metric: tuple[Path, Analysis]):
    found, here = of_metric[1].candidate.log_ratio, of_metric[1].candidate.log_ratio_here
    assert found is not None
    assert here is not None
    assert found.rates > 0.005
    assert found.high - found.low > here.high - here.low


def test_what_matters_is_what_makes_an_accuracy_high(of_metric: tuple[Path, Analysis]):
    for tuning in tunings(of_metric[1]):
        shares = importances(tuning)
        assert shares == importances(
            replace(tuning, trials=tuple((v, 0.5) for v, _ in tuning.trials))
        )
        assert shares is not None
        assert shares["lr"] > 0.5


def test_the_trial_that_is_there_first_is_compared(to_target: tuple[Path, Analysis]):
    out, analysis = to_target
    plan = analysis.plan
    for arm, tuning in zip(analysis.arms, tunings(analysis), strict=True):
        assert tuning.reached is not None
        assert 0 < sum(tuning.reached) < 16
        length = math.log(8 * UNIT)
        for time, there in zip(tuning.found, tuning.reached, strict=True):
            assert time is not None
            assert (time <= length) == there
        best = tuning.trials[tuning.lowest or 0][0]
        assert tuning.chosen == best
        tried = trial_runs(read_runs(out / "runs"), arm.name, UNIT, plan.tuning.seed)
        missed = [losses_of(tried, plan.decision, slope) for slope in (0.01, 1.0, 100.0)]
        orders = [sorted(found, key=lambda at, of=found: of[at] or 0.0) for found in missed]
        assert orders[0] == orders[1] == orders[2]  # among those that missed by the metric


def test_the_choice_is_in_the_interval_of_times(to_target: tuple[Path, Analysis]):
    out, analysis = to_target
    candidate, baseline = analysis.candidate, analysis.baseline
    found, here = candidate.log_ratio, candidate.log_ratio_here
    assert found is not None
    assert here is not None
    own = [arm.tuned.whole.off for arm in (candidate, baseline) if arm.tuned]
    apart = [a - b for a, b in zip(*own, strict=True)]
    sd = (sum(x * x for x in apart) / len(apart)) ** 0.5
    assert found.rates == pytest.approx(sd, rel=0.01)  # log tokens, whatever the slope
    text, data = page(out, analysis)
    assert "that needed the fewest tokens to reach accuracy 0.5" in text
    assert "missed" in text
    trial = data["arms"]["adamw"]["trials"][0]
    assert set(trial) == {"lr", "weight_decay", "loss", "tokens_to_target"}
    assert data["arms"]["adamw"]["tokens_after_trials"][-1]["mean"] < 8 * UNIT
    whole = analysis.budgets[-1]
    assert whole.log_ratio is not None
    assert whole.log_ratio.mean == pytest.approx(found.mean)
    assert whole.decision == analysis.verdict.decision


def test_a_trial_far_from_the_target_counts_as_a_hundred_runs(
    to_target: tuple[Path, Analysis],
):
    out, analysis = to_target
    tried = trial_runs(read_runs(out / "runs"), "adamw", UNIT, 0)
    found = losses_of(tried, analysis.plan.decision, slope=1e-300)
    longest = max(time for time in found.values() if time is not None)
    assert math.exp(longest) == pytest.approx(100 * 8 * UNIT)


def test_trials_that_all_miss_decide_nothing(tmp_path: Path):
    out = tmp_path / "pilot"
    write_designed(out, designed_plan(*ARMS, *TARGET, trials=6), gone=["adamw"])
    found = analyse(out)
    assert all(s.reach and s.reach.reached for arm in found.arms for s in arm.seeds)
    assert found.verdict.decision == "not-enough-runs"
    assert [f.code for f in found.verdict.findings] == ["target.no-trial"]
    text, _ = page(out, found)
    assert "none of the 6 trials of adamw tells its time to accuracy 0.5" in text
    assert found.budgets == ()

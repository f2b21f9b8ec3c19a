"""A metric that is named in the plan decides: by the ladder, or by the tokens to a target."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from mars_optim.cli import main
from mars_optim.errors import UserError
from mars_optim.experiment.analysis import analyse
from mars_optim.experiment.analysis.arm_model import ArmResult
from mars_optim.experiment.pilot.agenda import tuning_trials
from mars_optim.experiment.records import read_runs
from mars_optim.experiment.report.messages import Messages
from tests.support.scored_pilot import COMMAND, METRIC, accuracy, write_scored

BASE = {1: 0.0, 2: 0.01, 3: -0.01, 4: 0.005, 5: -0.004}
AHEAD = {seed: lag - 0.25 + 0.003 * seed for seed, lag in BASE.items()}
ERROR = ("decision.metric=error", "decision.direction=down")
TARGET = (*METRIC, "decision.target=0.5")
SAVED = 1 - math.exp(-0.25 + 0.003 * 3)


def late(by: float) -> dict[int, float]:
    return {seed: by + lag for seed, lag in BASE.items()}


def lags(candidate: dict[int, float], baseline: dict[int, float] = BASE) -> dict[str, Any]:
    return {"adamw": baseline, "mars-adamw": candidate}


def report(out: Path) -> tuple[dict[str, Any], str]:
    """The verdict, and the page as it is read."""
    assert main(["report", str(out)]) == 0
    text = (out / "report.md").read_text().replace("\\", "")
    return json.loads((out / "verdict.json").read_text()), text


def test_accuracy_ahead_saves_tokens_though_its_loss_rises(tmp_path: Path):
    write_scored(tmp_path, lags(AHEAD), *METRIC)
    verdict, text = report(tmp_path)
    assert verdict["verdict"] == "go"
    assert verdict["tokens_saved"]["mean"] == pytest.approx(SAVED, abs=0.01)
    assert verdict["rule"]["metric"] == "accuracy"
    assert verdict["rule"]["direction"] == "up"
    assert "for the same accuracy" in text
    assert "for the same loss" not in text


def test_values_are_shown_as_they_are(tmp_path: Path):
    write_scored(tmp_path, lags(AHEAD), *METRIC)
    found = analyse(tmp_path)
    assert found.baseline.mean_loss == pytest.approx(accuracy(1.0, 0.0002))
    assert found.candidate.loss_difference.low > 0
    assert all(trial.loss > 0 for arm in found.arms for trial in arm.trials)
    assert all(value > 0 for _, _, value in found.ladder)
    assert "loss" in found.candidate.scores


@pytest.mark.slow
def test_an_error_rate_goes_down(tmp_path: Path):
    write_scored(tmp_path, lags(AHEAD), *ERROR, task=COMMAND)
    verdict, text = report(tmp_path)
    assert verdict["tokens_saved"]["mean"] == pytest.approx(SAVED, abs=0.01)
    assert "for the same error" in text


def test_tuning_goes_by_the_metric(tmp_path: Path):
    plan = write_scored(tmp_path, lags(AHEAD), *METRIC)
    trials = tuning_trials(plan, read_runs(tmp_path / "runs"))["adamw"]
    assert min(trials, key=trials.__getitem__) == plan.arm["adamw"].lr
    assert trials[plan.arm["adamw"].lr] == pytest.approx(-accuracy(1.0, 0.0))


@pytest.mark.slow
def test_tokens_to_a_target_are_compared_pair_by_pair(tmp_path: Path):
    plan = write_scored(tmp_path, lags(AHEAD), *TARGET)
    assert plan.ladder == ()
    verdict, text = report(tmp_path)
    assert verdict["verdict"] == "go"
    assert verdict["tokens_saved"]["mean"] == pytest.approx(SAVED, abs=0.01)
    assert "to reach accuracy 0.5" in text
    assert "The way to accuracy 0.5" in text
    told = verdict["arms"]["adamw"]["to_target"]
    # accuracy 0.5 at a share exp(-0.5) of 1,000 steps of 8 tokens, read on straight lines
    assert told["tokens"] == pytest.approx(8000 * math.exp(-0.5), rel=0.01)
    assert told["steps"] == pytest.approx(1000 * math.exp(-0.5), rel=0.01)
    assert told["seconds"] == pytest.approx(100 * math.exp(-0.5), rel=0.01)


def test_runs_that_miss_the_target_are_counted_as_longer(tmp_path: Path):
    late = BASE | {2: 0.6, 5: 0.7}  # of which 0.5 is out of reach
    write_scored(tmp_path, lags(AHEAD, late), *TARGET)
    found = analyse(tmp_path)
    assert found.baseline.target.reached == 3
    assert found.candidate.target.kind == "censored"
    whole = analyse_without(tmp_path, (2, 5)).candidate.log_ratio
    assert found.candidate.log_ratio.mean > whole.mean
    assert found.candidate.log_ratio.n == 5
    assert ("target.missed", 2) in [(r.code, r.values.get("missed")) for r in found.verdict.reasons]


def analyse_without(out: Path, seeds: tuple[int, ...]) -> Any:
    """As if these seeds had never been run."""
    path = out / "plan.toml"
    kept = [seed for seed in BASE if seed not in seeds]
    path.write_text(path.read_text().replace(f"seeds = {list(BASE)}", f"seeds = {kept}"))
    return analyse(out)


@pytest.mark.slow
def test_a_baseline_that_never_arrives_bounds_the_saving(tmp_path: Path):
    write_scored(tmp_path, lags(AHEAD, late(0.6)), *TARGET)
    verdict, text = report(tmp_path)
    assert verdict["verdict"] == "go"
    assert "takes at least" in text
    assert "None of the 5 runs of adamw reached accuracy 0.5" in text


def test_a_candidate_that_never_arrives_is_no_gain(tmp_path: Path):
    write_scored(tmp_path, lags(late(0.7)), *TARGET)
    verdict, _ = report(tmp_path)
    assert verdict["verdict"] == "no-go"


TOLD = [
    (late(0.8), late(0.9), "none of the 10 runs reached accuracy"),
    (
        {1: 0.0, 2: 0.81, 3: 0.02, 4: 0.82, 5: 0.83},
        {1: 0.84, 2: 0.01, 3: 0.03, 4: 0.04, 5: 0.85},
        "too few runs of both arms reached accuracy 0.5",
    ),
    (late(-3.0), BASE, "5 of 10 runs have accuracy 0.5 at their very first"),
]


@pytest.mark.slow_but_one
@pytest.mark.parametrize(("candidate", "baseline", "said"), TOLD, ids=["nobody", "few", "first"])
def test_times_that_tell_nothing_decide_nothing(
    tmp_path: Path, candidate: dict[int, float], baseline: dict[int, float], said: str
):
    write_scored(tmp_path, lags(candidate, baseline), *TARGET)
    verdict, text = report(tmp_path)
    assert verdict["verdict"] == "not-enough-runs"
    assert said in text
    assert verdict["tokens_saved"] is None


def test_a_curve_that_is_cut_is_missing_not_a_miss(tmp_path: Path):
    write_scored(tmp_path, lags(AHEAD), *TARGET)
    rows = next(tmp_path.glob("runs/mars-adamw-*seed3*/rows.jsonl"))
    rows.write_text(rows.read_text()[:600])
    found = analyse(tmp_path)
    assert found.verdict.decision == "not-enough-runs"
    assert found.candidate.target.runs == 4
    assert "missing.cut" in [r.code for r in found.verdict.reasons]


def test_evaluations_far_apart_are_told(tmp_path: Path):
    write_scored(tmp_path, lags(AHEAD), *TARGET, evaluations=5)
    codes = [reason.code for reason in analyse(tmp_path).verdict.reasons]
    assert "target.coarse" in codes


def test_a_command_is_asked_to_evaluate_more_often_itself(tmp_path: Path):
    write_scored(tmp_path, lags(AHEAD), *TARGET, task=COMMAND, evaluations=5)
    reasons = analyse(tmp_path).verdict.reasons
    (said,) = (Messages().finding(r) for r in reasons if r.code.startswith("target.coarse"))
    assert "program that evaluates more often" in said
    assert "training.evaluations" not in said


def test_a_metric_that_no_run_has_is_named_with_those_there_are(tmp_path: Path):
    write_scored(tmp_path, lags(AHEAD), *METRIC)
    path = tmp_path / "plan.toml"
    for manifest in tmp_path.glob("runs/*/manifest.json"):
        manifest.write_text(manifest.read_text().replace('"accuracy"', '"acuracy"'))
    assert 'metric = "accuracy"' in path.read_text()
    with pytest.raises(
        UserError, match=r"'accuracy' as a number.*known: loss, acuracy; did you mean"
    ):
        analyse(tmp_path)


def test_run_without_a_last_number_is_missing_not_diverged(tmp_path: Path):
    write_scored(tmp_path, lags(AHEAD), *METRIC)
    folder = next(tmp_path.glob("runs/mars-adamw-*seed3*"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["outcome"]["scores"] = {"other": 1.0}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    found = analyse(tmp_path)
    assert found.verdict.decision == "not-enough-runs"
    assert found.candidate.diverged == 0
    assert "missing.metric" in [r.code for r in found.verdict.reasons]


def test_equal_accuracies_of_few_examples_prove_no_one_run(tmp_path: Path):
    write_scored(tmp_path, lags(AHEAD), *METRIC)
    found = analyse(tmp_path)
    arm: ArmResult = found.baseline
    assert found.verdict.trusted
    assert arm.metric == "accuracy"

"""The action: what is to be done, by whom, and what it costs where more runs would tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mars_optim.experiment.analysis import Analysis, ArmResult
from mars_optim.experiment.analysis.action import action
from mars_optim.experiment.analysis.aftermath import aftermath
from mars_optim.experiment.analysis.verdict import decide
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.report.messages import LANGS, Messages
from mars_optim.experiment.report.sections.action_line import action_line
from tests.experiment.analysis.test_stages import CLEAR, LOSS, UNSURE, analysis_of
from tests.support.results import baseline_with, candidate_at, candidate_with
from tests.support.rollout_files import BETTER, OPEN, WORSE, write_canary, write_guard_log

NEAR = (0.02, 0.12, 0.09, 0.11)  # undecided, but not far from a decision


def priced(candidate: ArmResult, **about: object) -> Analysis:
    """An analysis in which a pair takes an hour, a run a quarter, at 2.5 an hour."""
    made = analysis_of(candidate)
    plan = replace(made.plan, cost=replace(made.plan.cost, price_per_hour=2.5))
    return replace(made, plan=plan, pair_seconds=3600.0, run_seconds=900.0, **about)


@pytest.mark.parametrize(
    ("ends", "differences", "log", "kind", "code"),
    [
        (CLEAR, None, "", "switch", "switch"),
        (CLEAR, BETTER, "", "switch", "switch.canary"),
        (CLEAR, BETTER, "runs", "switch", "switch.guard"),
        (CLEAR, BETTER, "ended", "switch", "switch.ended"),
        (CLEAR, BETTER, "back", "do-not-switch", "do-not.guard"),
        (CLEAR, WORSE, "", "do-not-switch", "do-not.canary"),
        (CLEAR, OPEN, "", "spend", "spend.orders"),
        (LOSS, None, "", "do-not-switch", "do-not"),
        (LOSS, BETTER, "runs", "do-not-switch", "do-not"),
    ],
)
def test_the_action_follows_from_the_latest_stage(
    tmp_path: Path,
    ends: tuple[float, float],
    differences: tuple[float, ...] | None,
    log: str,
    kind: str,
    code: str,
) -> None:
    if differences:
        write_canary(tmp_path / "canary.json", differences)
    if log:
        write_guard_log(tmp_path / "guard.jsonl", back=log == "back", ended=log == "ended")
    happened = aftermath(Plan(), tmp_path)
    made = action(priced(candidate_at(*ends), aftermath=happened))
    assert (made.kind, made.code) == (kind, code)


def test_pairs_to_add_are_those_that_the_verdict_asks_for() -> None:
    analysis = priced(candidate_with(NEAR))
    needed = analysis.verdict.pairs_needed
    assert needed is not None
    assert needed > len(NEAR)
    made = action(analysis)
    assert (made.kind, made.code, made.pairs) == ("spend", "spend.pairs", needed - len(NEAR))
    assert made.hours == pytest.approx(needed - len(NEAR))
    assert made.money == pytest.approx(2.5 * made.hours)
    said = action_line(analysis, made, Messages())
    assert f"Spend about {made.pairs} more pair" in said
    assert "USD" in said


def test_no_number_of_pairs_is_asked_for_where_none_would_tell() -> None:
    threshold = 0.0513  # what pays, in log tokens: the estimate lies upon it
    made = action(priced(candidate_at(threshold - 0.2, threshold + 0.2)))
    assert (made.kind, made.code, made.pairs, made.hours) == ("no-runs-help", "never", None, None)


def test_the_choice_of_rates_asks_for_trials_not_for_pairs() -> None:
    candidate = candidate_at(-0.1, 0.2)
    assert candidate.log_ratio is not None
    wide = replace(candidate.log_ratio, rates=10 * candidate.log_ratio.error + 0.1)
    made = action(priced(replace(candidate, log_ratio=wide)))
    assert (made.kind, made.code) == ("spend", "trials")
    assert made.runs
    assert made.hours == pytest.approx(made.runs / 4)


@pytest.mark.parametrize(
    ("candidate", "baseline_at_edge", "code"),
    [
        (candidate_at(*CLEAR), True, "edge"),
        (candidate_at(*LOSS, bounds=["at least"]), False, "rung"),
        (candidate_with([0.3]), False, "spend.first"),
    ],
)
def test_another_obstacle_than_the_pairs_is_named(
    candidate: ArmResult, baseline_at_edge: bool, code: str
) -> None:
    made = priced(candidate)
    baseline = baseline_with(at_edge=baseline_at_edge)
    verdict = decide(made.plan, baseline, candidate, 0)
    found = action(replace(made, arms=(baseline, candidate), verdict=verdict))
    assert found.code == code


def test_missing_runs_are_made_first() -> None:
    made = replace(analysis_of(candidate_at(*UNSURE), missing=3), run_seconds=1800.0)
    found = action(made)
    assert (found.code, found.runs, found.hours) == ("spend.missing", 3, 1.5)
    assert found.money is None


def test_results_that_are_no_evidence_ask_for_no_money() -> None:
    made = priced(candidate_at(*UNSURE))
    untrusted = replace(made, verdict=replace(made.verdict, trusted=False))
    assert action(untrusted).kind == "no-runs-help"


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("ends", [CLEAR, LOSS, UNSURE])
def test_the_action_is_one_sentence(lang: str, ends: tuple[float, float]) -> None:
    analysis = priced(candidate_at(*ends))
    said = action_line(analysis, action(analysis), Messages(lang))  # type: ignore[arg-type]
    assert said.count("\n") == 0
    assert said.endswith("." if lang == "en" else "。")


@pytest.mark.parametrize("lang", LANGS)
def test_a_lost_ladder_asks_for_ladder_seeds_not_for_pairs(lang: str) -> None:
    whole = candidate_with([0.1, 0.2, 0.15])
    seeds = tuple(replace(seed, reading=None, log_ratio=None) for seed in whole.seeds)
    lost, made = replace(whole, seeds=seeds, log_ratio=None), priced(whole)
    plan = replace(made.plan, comparison=replace(made.plan.comparison, ladder_seeds=1))
    verdict = decide(plan, made.baseline, lost, 0)
    arms = tuple(lost if arm.name == lost.name else arm for arm in made.arms)
    found = replace(made, plan=plan, arms=arms, verdict=verdict)
    told = action(found)
    assert (told.kind, told.code) == ("no-runs-help", "ladder-lost")
    said = action_line(found, told, Messages(lang))  # type: ignore[arg-type]
    assert "comparison.ladder_seeds" in said

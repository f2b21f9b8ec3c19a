"""From the files of a pilot to its numbers."""

from __future__ import annotations

import dataclasses
import math
import random
from pathlib import Path
from typing import Any

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.analysis import Analysis, analyse
from mars_optim.experiment.analysis.ladder import BEND
from mars_optim.experiment.analysis.stats import t_interval
from mars_optim.experiment.pilot.search import at_edge
from mars_optim.experiment.report import write_report
from mars_optim.experiment.report.verdict_json import verdict_data
from mars_optim.files import write_json
from tests.support.results import reasons_of, sentence_of
from tests.support.runs_by_hand import (
    GAINS,
    UNIT,
    comparison_losses,
    law,
    write_comparison,
    write_run,
    write_tuning,
)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A finished pilot."""
    write_comparison(tmp_path, comparison_losses())
    return tmp_path


def changed(out: Path, **losses: Any) -> Analysis:
    """The pilot with some losses replaced; ``arm_seed_halves=loss``, None for diverged."""
    table: dict[Any, Any] = comparison_losses()
    for key, loss in losses.items():
        arm, seed, halves = key.rsplit("_", 2)
        table[arm.replace("_", "-"), int(seed), int(halves) / 2] = loss
    write_comparison(out, table)
    return analyse(out)


@pytest.mark.parametrize("arm", ["mars-adamw", "nadamw"])
def test_the_token_ratio_is_what_the_losses_were_made_with(whole: Path, arm: str):
    result = analyse(whole).arm(arm)
    gains = list(GAINS[arm].values())
    assert [s.log_ratio for s in result.seeds] == pytest.approx(gains)
    assert [s.reading.tokens for s in result.seeds if s.reading] == pytest.approx(
        [UNIT * math.exp(g) for g in gains]
    )
    expected = t_interval(gains, 0.95)
    assert result.log_ratio is not None
    assert result.log_ratio.low == pytest.approx(expected.low)
    assert result.log_ratio.high == pytest.approx(expected.high)
    assert result.bounds == set()


@pytest.mark.parametrize("arm", ["mars-adamw", "nadamw"])
def test_paired_loss_difference_cancels_the_level_of_each_seed(whole: Path, arm: str):
    result = analyse(whole).arm(arm)
    differences = [-0.5 * g for g in GAINS[arm].values()]
    assert [s.difference for s in result.seeds] == pytest.approx(differences)
    expected = t_interval(differences, 0.95)
    assert result.loss_difference is not None
    assert result.loss_difference.mean == pytest.approx(expected.mean)
    assert result.loss_difference.high == pytest.approx(expected.high)
    assert result.loss_difference.sd < 0.1  # the losses themselves differ by 1.5


def test_the_verdict_follows_from_the_interval(whole: Path):
    verdict = analyse(whole).verdict
    assert verdict.decision == "go"
    assert "takes 22 % fewer tokens than adamw" in sentence_of(verdict)  # 1 - exp(-0.25)
    assert "3 paired seeds" in sentence_of(verdict)


def test_the_controls_share_is_its_part_of_the_effect(whole: Path):
    result = analyse(whole)
    assert result.control is not None
    assert result.control_share == pytest.approx(0.11 / 0.25)
    assert result.against_control is not None
    assert result.against_control.mean == pytest.approx(-0.5 * (0.25 - 0.11))
    assert result.against_control.n == 3


def test_without_an_effect_nobody_has_a_share_of_it(tmp_path: Path):
    result = changed(tmp_path, mars_adamw_2_2=law(2, -0.4))
    assert result.candidate.log_ratio is not None
    assert result.candidate.log_ratio.low < 0
    assert result.control_share is None


def test_roles_and_facts_come_from_the_plan_and_the_runs(whole: Path):
    write_tuning(whole, "adamw", {5e-4: 3.2, 1e-3: 3.1, 2e-3: None})
    ratio = {"ratio": 1.5, "ratio_low": 1.4, "ratio_high": 1.7, "seconds": 1}
    write_json(whole / "probe.json", {"mars-adamw": ratio})
    result = analyse(whole)
    assert [(a.name, a.role) for a in result.arms] == [
        ("adamw", "baseline"),
        ("nadamw", "control"),
        ("mars-adamw", "candidate"),
    ]
    baseline, candidate = result.baseline, result.candidate
    assert (baseline.loss_difference, baseline.log_ratio) == (None, None)
    assert baseline.mean_loss == pytest.approx(3.0 + 0.5 / 3)
    assert (baseline.bytes_per_parameter, candidate.bytes_per_parameter) == (8.0, 12.0)
    assert (baseline.step_time, candidate.step_time) == (None, (1.5, 1.4, 1.7))
    assert [(t.lr, t.loss) for t in baseline.trials] == [(5e-4, 3.2), (1e-3, 3.1), (2e-3, None)]
    assert (baseline.lr, baseline.at_edge) == (1e-3, False)
    assert (result.unit_tokens, result.parameters) == (UNIT, 1000)
    assert result.environment == {"python": "3.11"}
    totals = result.totals
    assert (totals.runs, totals.diverged, totals.missing) == (18, 1, 0)
    assert totals.seconds == 36.0
    assert totals.tokens == UNIT * (9 + 3 * 0.5 + 3 * 2 + 2.5)


def test_the_ladder_and_the_curves_show_every_seed(whole: Path):
    result = analyse(whole)
    assert result.ladder == tuple(
        sorted(
            (seed, int(UNIT * b), law(seed, math.log(b))) for seed in (1, 2, 3) for b in (0.5, 1, 2)
        )
    )
    assert [c.seed for c in result.candidate.curves] == [1, 2, 3]
    loss = law(2, 0.25)
    assert result.candidate.curves[1].train == ((UNIT, loss + 0.5),)
    assert result.candidate.curves[1].valid == ((UNIT, loss),)


def test_neither_the_names_nor_the_order_of_the_folders_matter(whole: Path):
    before = analyse(whole)
    folders = sorted((whole / "runs").iterdir())
    names = [f"{i:03}" for i in range(len(folders))]
    random.Random(0).shuffle(names)
    for folder, name in zip(folders, names, strict=True):
        folder.rename(whole / "runs" / name)
    assert dataclasses.asdict(analyse(whole)) == dataclasses.asdict(before)


@pytest.mark.parametrize("left_out", [1, 5, 11])
def test_an_unfinished_pilot_says_how_many_runs_are_missing(tmp_path: Path, left_out: int):
    losses = comparison_losses()
    judged = sorted(key for key in losses if key[0] != "nadamw")
    gone = random.Random(left_out).sample(judged, left_out)
    write_comparison(tmp_path, {k: v for k, v in losses.items() if k not in gone})
    result = analyse(tmp_path)
    assert result.totals.missing == left_out
    assert result.verdict.decision == "not-enough-runs"
    assert f"{left_out} run" in sentence_of(result.verdict)


def test_missing_runs_of_unjudged_arm_do_not_delay_the_verdict(tmp_path: Path):
    losses = comparison_losses()
    write_comparison(tmp_path / "whole", losses)
    write_comparison(tmp_path / "part", {k: v for k, v in losses.items() if k[0] != "nadamw"})
    whole, part = analyse(tmp_path / "whole"), analyse(tmp_path / "part")
    assert part.totals.missing == 3
    assert part.verdict == whole.verdict


def test_runs_under_way_and_tuning_runs_do_not_count_as_done(tmp_path: Path):
    losses = comparison_losses()
    under_way = losses.pop(("mars-adamw", 3, 1.0))
    write_comparison(tmp_path, losses)
    write_run(tmp_path, "mars-adamw", under_way, seed=3, finished=False)
    write_tuning(tmp_path, "mars-adamw", {1e-3: 1.0})
    result = analyse(tmp_path)
    assert result.totals.missing == 1
    assert [s.seed for s in result.candidate.seeds] == [1, 2]


def test_pilot_still_tuning_has_trials_but_no_comparison(tmp_path: Path):
    write_comparison(tmp_path, {})
    write_tuning(tmp_path, "nadamw", {1e-3: 3.0})
    result = analyse(tmp_path)
    assert result.totals.missing == 15
    assert (result.arm("nadamw").lr, result.candidate.lr) == (None, None)
    assert result.candidate.log_ratio is None
    assert result.verdict.decision == "not-enough-runs"


def test_a_diverged_candidate_counts_as_a_loss_above_the_ladder(tmp_path: Path):
    result = changed(tmp_path, mars_adamw_2_2=None)
    seed = result.candidate.seeds[1]
    assert (seed.loss, seed.difference) == (None, None)
    assert seed.log_ratio == pytest.approx(math.log(0.5))
    assert result.candidate.bounds == {"at most"}
    assert result.candidate.diverged == 1
    assert result.verdict.decision == "no-go"


@pytest.mark.parametrize(
    ("loss", "bound", "ratio"),
    [(law(1, math.log(0.4)), "at most", 0.5), (law(1, math.log(2.1)), "at least", 2.0)],
)
def test_a_loss_outside_the_ladder_is_a_bound(
    tmp_path: Path, loss: float, bound: str, ratio: float
):
    result = changed(tmp_path, mars_adamw_1_2=loss)
    assert result.candidate.seeds[0].log_ratio == pytest.approx(math.log(ratio))
    assert result.candidate.bounds == {bound}


def test_baseline_diverged_at_one_budget_is_read_from_the_others(tmp_path: Path):
    result = changed(tmp_path, adamw_2_2=None)
    seed = result.candidate.seeds[1]
    assert seed.difference is None
    ends = [2**BEND, 2**-BEND]  # the rungs of half and of twice the budget, by the law
    share = (math.log(2) + 0.25) / math.log(4)
    law_there = ends[0] + share * (ends[1] - ends[0])
    assert seed.log_ratio == pytest.approx(-math.log(law_there) / BEND)
    assert result.baseline.diverged == 1


def test_a_pair_lost_to_a_diverging_baseline_is_spoken_of(tmp_path: Path):
    result = changed(tmp_path, adamw_2_1=None, adamw_2_2=None, adamw_2_4=None)
    assert result.candidate.log_ratio is not None
    assert result.candidate.log_ratio.n == 2
    text = " ".join((sentence_of(result.verdict), *reasons_of(result.verdict)))
    assert "diverged" in text


TRIALS = [
    ("inside", {1.0: 3.0, 2.0: 2.0, 4.0: 3.0}, False),
    ("at the highest", {1.0: 3.0, 2.0: 2.0, 4.0: 1.0}, True),
    ("at the lowest", {1.0: 1.0, 2.0: 2.0, 4.0: 3.0}, True),
    ("below those that diverged", {1.0: 3.0, 2.0: 2.0, 4.0: None}, False),
    ("the only one that did not diverge", {1.0: 2.0, 2.0: None}, True),
    ("one trial", {1.0: 2.0}, True),
    ("all diverged", {1.0: None, 2.0: None}, True),
    ("equals: the lower counts", {1.0: 2.0, 2.0: 2.0, 4.0: 3.0}, True),
]


@pytest.mark.parametrize(
    ("trials", "expected"), [t[1:] for t in TRIALS], ids=[t[0] for t in TRIALS]
)
def test_the_report_calls_an_edge_what_the_search_calls_one(
    tmp_path: Path, trials: dict[float, float | None], expected: bool
):
    write_comparison(tmp_path, {})
    write_tuning(tmp_path, "adamw", trials)
    assert at_edge(trials) is expected
    assert analyse(tmp_path).baseline.at_edge is expected


def test_folder_without_plan_or_runs_is_refused_with_advice(tmp_path: Path):
    with pytest.raises(UserError, match=r"plan\.toml does not exist"):
        analyse(tmp_path)
    write_comparison(tmp_path, {})
    with pytest.raises(UserError, match=f"{tmp_path} holds no finished run yet; `mars pilot"):
        analyse(tmp_path)
    write_run(tmp_path, "adamw", 3.0, finished=False)
    with pytest.raises(UserError, match="holds no finished run yet"):
        analyse(tmp_path)


def test_changes_of_the_plan_are_handed_on(whole: Path):
    assert analyse(whole).amendments == ()
    (whole / "amendments.jsonl").write_text('{"date": "d", "changes": ["a"]}\n{"date": "e"}\n')
    assert analyse(whole).amendments == ({"date": "d", "changes": ["a"]}, {"date": "e"})


@pytest.mark.parametrize("name", ["amendments.jsonl", "probe.json"])
def test_a_damaged_file_is_refused_by_name_or_passed_over(whole: Path, name: str):
    (whole / name).write_text('{"date": "2026')
    try:
        analyse(whole)
    except UserError as error:
        assert name in str(error)  # noqa: PT017


def test_results_that_are_no_evidence_show_no_interval_anywhere(tmp_path: Path):
    found = changed(tmp_path, **{f"mars_adamw_{seed}_2": 2.8123456 for seed in (1, 2, 3)})
    assert found.verdict.decision == "not-enough-runs"
    assert not found.verdict.trusted
    assert not [a.name for a in found.arms if a.log_ratio or a.loss_difference]
    data = verdict_data(found)
    assert data["tokens_saved"] is data["hours_saved"] is None
    assert data["arms"]["mars-adamw"]["final_losses"]["1"] == 2.8123456
    write_report(found, tmp_path)  # a page without intervals can be made


def test_arm_that_learned_at_no_lr_gives_no_verdict(tmp_path: Path):
    trials = {1e-3: 6.01, 2e-3: 6.0, 4e-3: 6.02}
    write_tuning(tmp_path, "mars-adamw", trials)
    write_tuning(tmp_path, "adamw", {5e-4: 3.1, 1e-3: 3.0, 2e-3: 3.1})
    stuck = {f"mars_adamw_{seed}_2": 6.01 + 0.0123 * seed for seed in (1, 2, 3)}
    found = changed(tmp_path, **stuck)
    assert found.arm("mars-adamw").at_edge
    assert not found.arm("adamw").at_edge
    assert found.verdict.decision == "not-enough-runs"

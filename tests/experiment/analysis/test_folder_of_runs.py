"""Runs by themselves are sorted into experiments: best rates, paired differences, published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.analysis import survey
from mars_optim.experiment.analysis.choice import in_loss
from mars_optim.experiment.analysis.stats import t_interval
from mars_optim.experiment.plan.plan_file import make_plan
from tests.support.written_runs import RECIPE, STEP_TOKENS, write_run, write_sweep


def test_a_folder_without_a_finished_run_says_what_makes_one(tmp_path: Path):
    with pytest.raises(UserError, match="holds no finished run yet; `mars train RECIPE"):
        survey(tmp_path)
    write_run(tmp_path, "adamw", 1e-3, 1, 3.0, finished=False)
    with pytest.raises(UserError, match=r"no finished run yet \(1 under way or stopped\)"):
        survey(tmp_path)


def test_arm_stands_at_lr_with_most_seeds_and_pairs_differences(tmp_path: Path):
    write_sweep(tmp_path)
    (found,) = survey(tmp_path).experiments
    assert [a.name for a in found.arms] == ["adamw", "mars-adamw"]
    assert [a.role for a in found.arms] == ["baseline", "candidate"]
    adamw, mars = found.arms
    assert (adamw.lr, mars.lr) == (1e-3, 6e-3)
    assert {s.seed: s.loss for s in mars.seeds} == {1: 2.8, 2: 2.95, 3: 2.65}
    assert adamw.loss_difference is None
    at_these_rates = t_interval([2.8 - 3.0, 2.95 - 3.1, 2.65 - 2.9], 0.95)
    assert mars.loss_difference == in_loss(at_these_rates, mars, adamw)
    assert found.best is mars


def test_uncertain_best_lr_widens_the_loss_interval(tmp_path: Path):
    for seed in (1, 2, 3):
        for i, loss in enumerate((3.10, 3.00, 3.08)):
            write_run(tmp_path, "adamw", 1e-3 * 2**i, seed, loss + 0.01 * seed)
        write_run(tmp_path, "mars-adamw", 3e-3, seed, 2.98 + 0.01 * seed + 0.001 * (seed == 1))
    (found,) = survey(tmp_path).experiments
    adamw, mars = found.arms
    at_these_rates = t_interval([-0.019, -0.02, -0.02], 0.95)
    assert adamw.regret
    assert not mars.regret  # one rate: nothing is known of it
    assert mars.loss_difference is not None
    assert mars.loss_difference.high > at_these_rates.high


def test_sweep_takes_seeds_common_to_all_lrs_and_finds_edges(tmp_path: Path):
    write_sweep(tmp_path)
    (found,) = survey(tmp_path).experiments
    adamw, mars = found.arms
    assert {t.lr: t.loss for t in adamw.trials} == {5e-4: 3.2, 1e-3: 3.0, 2e-3: 3.1}
    assert {t.lr: t.loss for t in mars.trials} == {1.5e-3: 3.1, 3e-3: 2.9, 6e-3: 2.8, 1.2e-2: None}
    assert not adamw.at_edge
    assert not mars.at_edge  # the rate above diverged


@pytest.mark.parametrize(("losses", "edge"), [((3.0, 2.9), True), ((3.0,), False)])
def test_best_of_two_lrs_is_at_an_edge_and_a_single_lr_is_not(
    losses: tuple[float, ...], edge: bool, tmp_path: Path
):
    for i, loss in enumerate(losses):
        write_run(tmp_path, "adamw", 1e-3 * 2**i, 1, loss)
    (found,) = survey(tmp_path).experiments
    assert found.arms[0].at_edge is edge


def test_lr_with_lowest_loss_wins_among_equal_seed_counts(tmp_path: Path):
    for lr, loss in ((1e-3, 3.0), (2e-3, 2.9), (4e-3, 3.3), (8e-3, None)):
        write_run(tmp_path, "adamw", lr, 1, loss)
    (found,) = survey(tmp_path).experiments
    assert found.arms[0].lr == 2e-3


def test_fully_diverged_arm_has_no_loss_and_baseline_is_best(tmp_path: Path):
    write_run(tmp_path, "adamw", 1e-3, 1, 3.0)
    write_run(tmp_path, "mars-adamw", 3e-3, 1, None)
    (found,) = survey(tmp_path).experiments
    mars = found.arms[1]
    assert (mars.mean_loss, mars.diverged, mars.loss_difference) == (None, 1, None)
    assert found.best is found.baseline


def test_without_a_common_seed_there_is_no_difference(tmp_path: Path):
    write_run(tmp_path, "adamw", 1e-3, 1, 3.0)
    write_run(tmp_path, "mars-adamw", 3e-3, 2, 2.9)
    (found,) = survey(tmp_path).experiments
    assert found.arms[1].loss_difference is None


def test_published_numbers_and_ours_come_from_plan_beside_runs(tmp_path: Path):
    write_sweep(tmp_path)
    (found,) = survey(tmp_path).experiments
    assert found.title == RECIPE.recipe.title
    assert {name: p.loss for name, p in found.published.items()} == {
        "adamw": 2.885,
        "mars-adamw": 2.849,
    }
    assert found.ours["adamw"].machine == "a laptop"
    assert (found.unit_tokens, found.parameters, found.steps) == (100 * STEP_TOKENS, 1000, 100)
    assert found.seconds == {"adamw": 2.0, "mars-adamw": 2.0}


def test_runs_without_a_plan_are_compared_all_the_same(tmp_path: Path):
    write_sweep(tmp_path, plan=None)
    (found,) = survey(tmp_path).experiments
    assert found.title == ""
    assert not found.published
    assert [a.name for a in found.arms] == ["adamw", "mars-adamw"]


def test_plan_of_unreadable_version_loses_only_published_numbers(tmp_path: Path):
    write_sweep(tmp_path)
    for path in tmp_path.glob("runs/*/plan.toml"):
        path.write_text("[recipe]\nversion = 9\n")
    (found,) = survey(tmp_path).experiments
    assert not found.published
    assert len(found.arms) == 2


def test_different_settings_under_one_name_become_separate_arms(tmp_path: Path):
    write_run(tmp_path, "adamw", 1e-3, 1, 3.0)
    write_run(tmp_path, "mars-adamw", 3e-3, 1, 2.9)
    write_run(tmp_path, "mars-adamw", 3e-3, 1, 2.8, gamma=0.05, betas=(0.9, 0.99))
    (found,) = survey(tmp_path).experiments
    assert [a.name for a in found.arms] == [
        "adamw",
        "mars-adamw (betas 0.9 0.99, gamma 0.05)",
        "mars-adamw (betas 0.95 0.99, gamma 0.025)",
    ]
    assert set(found.published) == {a.name for a in found.arms}


def test_where_tuning_would_start_makes_no_other_arm(tmp_path: Path):
    write_run(tmp_path, "adamw", 1e-3, 1, 3.0)
    other = make_plan({"arm": {"adamw": {"lr": 5e-4}}, "training": {"steps": 100}})
    write_run(tmp_path, "adamw", 2e-3, 1, 2.9, plan=other)
    (found,) = survey(tmp_path).experiments
    assert [(a.name, len(a.trials)) for a in found.arms] == [("adamw", 2)]


def test_runs_of_other_length_or_task_are_separate_experiments(tmp_path: Path):
    write_sweep(tmp_path)
    write_run(tmp_path, "adamw", 1e-3, 1, 2.5, steps=200)
    wider = replace(RECIPE, task=replace(RECIPE.task, width=128))
    write_run(tmp_path, "adamw", 1e-3, 1, 2.4, plan=wider)
    found = survey(tmp_path).experiments
    assert [e.runs for e in found] == [11, 1, 1]
    assert {e.arms[0].mean_loss for e in found} == {3.0, 2.5, 2.4}


def test_what_is_unfinished_or_damaged_is_named_and_left_out(tmp_path: Path):
    write_sweep(tmp_path)
    stopped = write_run(tmp_path, "nadamw", 1e-3, 1, 3.0, finished=False)
    elsewhere = write_run(tmp_path, "nadamw", 1e-3, 1, 3.0, finished=False, steps=999)
    damaged = write_run(tmp_path, "nadamw", 7e-3, 1, 3.0)
    (tmp_path / "runs" / damaged / "manifest.json").write_text("{")
    found = survey(tmp_path)
    assert [a.name for a in found.experiments[0].arms] == ["adamw", "mars-adamw"]
    assert found.experiments[0].unfinished == (stopped,)
    assert found.unfinished == (elsewhere,)
    assert found.damaged == (damaged,)


def test_scores_of_the_last_evaluation_are_means_over_the_seeds(tmp_path: Path):
    for seed, accuracy in ((1, 0.5), (2, 0.7)):
        scores = {"accuracy": accuracy, "bits_per_byte": 1.0 + accuracy}
        write_run(tmp_path, "adamw", 1e-3, seed, 3.0, scores=scores)
    (found,) = survey(tmp_path).experiments
    assert found.arms[0].scores == {
        "accuracy": pytest.approx(0.6),
        "bits_per_byte": pytest.approx(1.6),
    }


def test_departures_of_arms_that_did_not_run_are_left_out(tmp_path: Path):
    changed = ("training.steps = 100 (recipe: 100000)", "arm.nadamw.lr = 1.0 (recipe: 0.1)")
    plan = replace(RECIPE, recipe=replace(RECIPE.recipe, changed=changed))
    write_sweep(tmp_path, plan=plan)
    (found,) = survey(tmp_path).experiments
    assert found.changed == changed[:1]

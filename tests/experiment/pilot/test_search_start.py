"""Where the search for an arm's rate starts: ``tuning.start``."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.experiment.pilot.agenda import agenda
from mars_optim.experiment.pilot.tuning import tuning_of
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.arms import ARMS, same_step_size
from mars_optim.experiment.plan.plan_file import built_in_plan, make_plan
from mars_optim.experiment.records.trials import best_lr
from tests.support.pretend import DATA, Pilot, carry_out, finish, small_plan, trials_of

BEST = 0.032
"""The best rate of all arms, five octaves from AdamW's start."""


def plan_of(start: str = "baseline", **options: object) -> Plan:
    return small_plan(start=start, **options)


def valley(spec: RunSpec) -> float:
    return 3.0 + 0.1 * math.log2(spec.lr / BEST) ** 2 - 0.1 * math.log(spec.steps)


def rates(pilot: Pilot, arm: str) -> list[float]:
    """In the order in which they were tried."""
    return [s.lr for s in pilot.purpose("tune") if s.arm_name == arm]


def test_the_baseline_is_tuned_before_arms_of_its_rule():
    plan = plan_of()
    tuned = [s.arm_name for s in carry_out(plan, valley).purpose("tune")]
    baseline = tuned.count("adamw")
    assert tuned[:baseline] == ["adamw"] * baseline
    assert set(tuned[baseline:]) == {"nadamw", "mars-adamw"}


def test_arms_of_its_rule_start_at_the_baselines_best_trial():
    plan = plan_of()
    pilot = carry_out(plan, valley)
    best = best_lr(trials_of(plan, pilot)["adamw"])
    assert best == pytest.approx(BEST)
    assert rates(pilot, "mars-adamw")[0] == rates(pilot, "nadamw")[0] == best


def test_a_search_from_there_is_shorter_and_finds_the_same():
    own, after = (carry_out(plan_of(start), valley) for start in ("own", "baseline"))
    assert len(rates(after, "mars-adamw")) == 5 < len(rates(own, "mars-adamw"))
    for pilot in (own, after):
        (lr,) = {s.lr for s in pilot.purpose("compare") if s.arm_name == "mars-adamw"}
        assert lr == pytest.approx(BEST, rel=0.03)


@pytest.mark.parametrize(
    ("start", "at_once"),
    [("own", {"adamw", "muon", "mars-adamw"}), ("baseline", {"adamw", "muon"})],
)
def test_an_arm_of_another_rule_starts_at_its_own_rate(start: str, at_once: set[str]):
    arms = {name: ARMS[name] for name in ("adamw", "muon", "mars-adamw")}
    plan = replace(plan_of(start), arms=tuple(arms), arm=arms)
    first = {s.arm_name: s.lr for s in agenda(plan, DATA, []).ready}
    assert first.keys() == at_once
    assert first["muon"] == ARMS["muon"].lr


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_the_order_in_which_runs_finish_changes_no_run(seed: int, workers: int):
    one = carry_out(plan_of(), valley)
    other = carry_out(plan_of(), valley, workers=workers, order=random.Random(seed))
    assert other.ids == one.ids


def test_a_baseline_that_always_diverges_leaves_others_their_own():
    plan = plan_of(max_trials=5)
    pilot = carry_out(plan, lambda s: None if s.arm_name == "adamw" else valley(s))
    assert rates(pilot, "mars-adamw")[0] == plan.arm["mars-adamw"].lr


def test_a_baseline_that_is_given_up_keeps_nobody_waiting():
    plan = plan_of()
    size = plan.sizes()[0]
    first = agenda(plan, DATA, []).ready[0]
    tuning = tuning_of(plan, size, DATA, [], {first.run_id})
    assert {s.arm_name for s in tuning.ready} == {"nadamw", "mars-adamw"}
    assert tuning.going == ("nadamw", "mars-adamw")


def test_tuning_is_not_over_while_arms_wait():
    plan = plan_of()
    size = plan.sizes()[0]
    tuning = tuning_of(plan, size, DATA, [], ())
    assert [s.arm_name for s in tuning.ready] == ["adamw"]
    assert not tuning.over
    assert tuning.chosen == {}
    assert set(tuning.going) == {"adamw", "nadamw", "mars-adamw"}


def test_a_comparison_that_has_begun_keeps_its_rate():
    plan = plan_of()
    pilot = carry_out(plan, valley)
    at = agenda(plan, DATA, pilot.runs)
    assert at.finished
    lower = finish(
        replace(pilot.purpose("tune")[0], lr=BEST / 2**0.5), 0.0
    )  # a trial that somebody adds by hand
    assert agenda(plan, DATA, [*pilot.runs, lower]).finished


@pytest.mark.parametrize(
    ("arm", "other", "alike"),
    [
        ("mars-adamw", "adamw", True),
        ("nadamw", "adamw", True),
        ("mars-lion", "lion", True),
        ("lion", "adamw", False),
        ("mars-m", "muon", True),
        ("muon", "adamw", False),
    ],
)
def test_arms_of_one_rule_have_steps_of_one_size(arm: str, other: str, alike: bool):
    assert same_step_size(ARMS[arm], ARMS[other]) is alike


@pytest.mark.parametrize(("lr", "alike"), [(1e-3, True), (3e-4, False)])
def test_arms_of_a_command_are_alike_where_their_rates_are(lr: float, alike: bool, tmp_path: Path):
    arms = {"a": {"lr": 1e-3}, "b": {"lr": lr}}
    task = {"kind": "command", "command": "true {lr} {seed} {steps} {run_dir} {optimizer}"}
    plan = make_plan(
        {"arms": ["a", "b"], "arm": arms, "task": task}
        | {"comparison": {"baseline": "a", "candidate": "b"}},
        folder=tmp_path,
    )
    assert same_step_size(plan.arm["b"], plan.arm["a"]) is alike


def test_the_built_in_adamw_starts_where_the_width_puts_it():
    plan = built_in_plan()
    assert plan.tuning.start == "baseline"
    assert plan.arm["adamw"].lr == pytest.approx(1e-3 * 768 / plan.task.width)  # type: ignore[union-attr]
    assert built_in_plan(("arm.adamw.lr=2e-3",)).arm["adamw"].lr == 2e-3

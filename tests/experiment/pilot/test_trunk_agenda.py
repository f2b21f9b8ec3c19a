"""Trunks and branches on the agenda: what they cost, what waits for what, and what is refused."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mars_optim.errors import UserError
from mars_optim.experiment.analysis.comparison import comparison
from mars_optim.experiment.pilot.agenda import agenda, jobs_of_a_seed
from mars_optim.experiment.pilot.price import price, remaining
from mars_optim.experiment.pilot.progress import Reporter
from mars_optim.experiment.pilot.retries import Retries, Timing
from mars_optim.experiment.pilot.run import plan_changes
from mars_optim.experiment.pilot.spending import Spending
from mars_optim.experiment.pilot.standing import RunProgress, describe_run
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.execution import RunningPlan
from mars_optim.experiment.plan.plan_file import load_plan, make_plan, plan_toml
from mars_optim.experiment.plan.sizes import SizePlan
from mars_optim.experiment.records import RunWriter
from tests.support.pretend import DATA, Valley, carry_out, finish, small_plan, with_seeds


def with_trunks(**options: Any) -> Plan:
    plan = small_plan(**options)
    return replace(plan, training=replace(plan.training, decay="wsd", trunk=True))


PLAN = with_trunks(ladder=(0.5, 0.75, 1.5))
WHOLE = replace(PLAN, training=replace(PLAN.training, trunk=False))
UNIT = PLAN.training.steps


def compared(plan: Plan) -> list[RunSpec]:
    return carry_out(plan, Valley(plan)).purpose("trunk", "ladder", "compare")


def test_a_ladder_of_four_budgets_costs_less_than_two():
    size = PLAN.sizes()[0]
    jobs = jobs_of_a_seed(PLAN, size, PLAN.arms, seed=1)
    of_arm = {arm: [job for job in jobs if job.arm == arm] for arm in PLAN.arms}
    cost = {arm: sum(job.work for job in jobs) / UNIT for arm, jobs in of_arm.items()}
    assert cost == {"adamw": 1.95, "nadamw": 1.0, "mars-adamw": 1.95}
    whole = jobs_of_a_seed(WHOLE, size, PLAN.arms, 1)
    assert sum(job.work for job in whole if job.arm == "adamw") / UNIT == 3.75


def test_both_arms_have_one_trunk_a_seed_and_a_ladder_each():
    runs = compared(PLAN)
    trunks = [s for s in runs if s.branches]
    assert sorted((s.arm_name, s.seed) for s in trunks) == [
        (arm, seed) for arm in ("adamw", "mars-adamw") for seed in (1, 2)
    ]
    assert {s.branches for s in trunks} == {(40, 60, 80, 120)}
    branches = [s for s in runs if s.trunk]
    assert {s.trunk for s in branches} == {s.run_id for s in trunks}
    of_one = [s for s in branches if s.trunk == trunks[0].run_id]
    assert sorted((s.start, s.steps) for s in of_one) == [(40, 50), (60, 75), (80, 100), (120, 150)]
    assert {(s.arm_name, s.seed, s.lr) for s in of_one} == {
        (trunks[0].arm_name, trunks[0].seed, trunks[0].lr)
    }
    others = [s for s in runs if s.arm_name == "nadamw"]
    assert all(not s.trunk and s.steps == UNIT for s in others)


def test_every_rung_of_both_ladders_is_wanted():
    at = comparison(PLAN, PLAN.sizes()[0], carry_out(PLAN, Valley(PLAN)).runs)
    assert (at.missing, len(at.compared)) == (0, 2 * (4 + 4 + 1))
    runs = [r for r in at.runs if not (r.spec.arm_name == "mars-adamw" and r.spec.steps == 150)]
    assert comparison(PLAN, PLAN.sizes()[0], runs).open == 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("workers", [1, 3])
def test_a_branch_starts_after_its_trunk_has_finished(workers: int, seed: int):
    order = random.Random(seed)
    runs, running = [], list[RunSpec]()
    while not (now := agenda(PLAN, DATA, runs, running)).finished:
        for spec in now.ready[: workers - len(running)]:
            assert not spec.trunk or spec.trunk in {r.spec.run_id for r in runs}
            running.append(spec)
        spec = running.pop(order.randrange(len(running)))
        runs.append(finish(spec, Valley(PLAN)(spec)))
    assert {r.spec.run_id for r in runs} == carry_out(PLAN, Valley(PLAN)).ids


def test_price_and_plan_count_a_branchs_own_steps_only():
    told, done = price(PLAN, None, workers=1), carry_out(PLAN, Valley(PLAN))
    work = sum(r.spec.work for r in done.runs)
    assert told.steps[0] == work == done.last.planned_steps
    assert told.runs[0] == len(done.runs) == done.last.planned_runs
    trunk = next(i for i in told.items if i.purpose == "trunk")
    assert (trunk.runs, trunk.steps) == ((2, 2), (240, 240))
    left = remaining(PLAN, done.runs, None, workers=1)
    assert (left.runs[1], left.steps[1]) == (0, 0)
    half = [r for r in done.runs if r.spec.seed != 2]
    assert remaining(PLAN, half, None, workers=1).steps[0] == sum(
        r.spec.work for r in done.runs if r.spec.seed == 2
    )


def test_a_trunk_that_is_given_up_takes_its_branches_with_it():
    runs = carry_out(PLAN, Valley(PLAN)).runs
    lost = next(r.spec for r in runs if r.spec.branches)
    left = [r for r in runs if lost.run_id not in (r.spec.run_id, r.spec.trunk)]
    assert agenda(PLAN, DATA, left, (), {lost.run_id}).finished
    at = comparison(PLAN, PLAN.sizes()[0], left)
    assert at.missing == 4


def test_looks_at_every_pair_do_not_wait_for_what_was_given_up():
    plan = with_seeds(PLAN, (1, 2, 3, 4))
    plan = replace(plan, decision=replace(plan.decision, looks="every-pair"))
    noisy = random.Random(0)
    runs = carry_out(plan, Valley(plan)).runs
    assert {r.spec.seed for r in runs} == {0, 1, 2, 3}, "the third pair settles it"
    lost = next(r.spec for r in runs if r.spec.branches and r.spec.seed == 3)
    left = [r for r in runs if lost.run_id not in (r.spec.run_id, r.spec.trunk)]
    left = [
        r
        if r.spec.purpose == "tune" or r.final_loss is None
        else finish(r.spec, r.final_loss + noisy.gauss(0, 0.05))
        for r in left
    ]
    now = agenda(plan, DATA, left, (), {lost.run_id})
    assert {s.seed for s in now.ready} == {4}


def test_no_trunk_is_made_again_once_its_branches_are_there():
    runs = carry_out(PLAN, Valley(PLAN)).runs
    assert agenda(PLAN, DATA, [r for r in runs if not r.spec.branches]).finished
    short = [r for r in runs if not r.spec.branches and (r.spec.steps, r.spec.seed) != (150, 1)]
    assert [bool(s.branches) for s in agenda(PLAN, DATA, short).ready] == [True, True]


def test_more_tuning_seeds_move_no_rate_of_a_running_trunk():
    runs = carry_out(PLAN, Valley(PLAN)).runs
    begun = [r for r in runs if r.spec.purpose == "tune" or r.spec.branches]
    more = replace(PLAN, tuning=replace(PLAN.tuning, more_seeds=(7,)))
    spoilt = [
        *begun,
        *(
            finish(s, 9.0 - abs(Valley(PLAN)(s) or 0.0))  # as if the best were the worst
            for s in agenda(more, DATA, begun).ready
            if s.seed == 7
        ),
    ]
    rates = {s.arm_name: s.lr for s in (r.spec for r in begun) if s.branches}
    ladder = [s for s in agenda(more, DATA, spoilt).ready if s.trunk]
    assert ladder
    assert {(s.arm_name, s.lr) for s in ladder} <= set(rates.items())


def test_trunks_at_other_sizes_have_their_own_branch_points():
    plan = replace(PLAN, scale={"wide": SizePlan(width=128, steps=200)})
    trunks = {s.branches for s in compared(plan) if s.branches}
    assert trunks == {(40, 60, 80, 120), (80, 120, 160, 240)}


def test_time_limits_and_budgets_count_a_branchs_own_steps(tmp_path: Path):
    branch = next(s for s in compared(PLAN) if s.steps == 150)
    timings = {"adamw": Timing(60.0), "mars-adamw": Timing(60.0)}
    assert Retries(RunningPlan(), timings, 1).limit(branch) == 10 * 30 * 60 + 600
    plan = make_plan({"cost": {"price_per_hour": 1.0, "budget": 0.6}})
    spending = Spending(plan, tmp_path)
    assert spending.pays_for(branch, [], timings, 1), "30 steps of a minute are half an hour"
    assert not spending.pays_for(replace(branch, trunk=""), [], timings, 1)
    assert spending.pays_for(branch, [(branch, 130)], timings, 1)


def test_progress_is_of_a_branchs_own_steps():
    branch = next(s for s in compared(PLAN) if s.steps == 150)
    assert [RunProgress(branch, step).share for step in (0, 120, 135, 150)] == [0, 0, 0.5, 1]
    assert "decay over steps 120 to 150" in describe_run(branch)
    with Reporter(Console(quiet=True)) as reporter:
        reporter.plan(steps=100, runs=3, done_steps=0, done_runs=0)
        reporter.begin(branch)
        reporter.advance(branch.run_id, 135)
        assert reporter.standing("running").share == 0.15


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another decay": ({"training": {"decay": "cosine"}}, "trunk = True needs decay = 'wsd'"),
    "share of no decay": (
        {"training": {"trunk": False, "decay": "linear", "decay_share": 0.1}},
        "decay_share = 0.1 needs decay = 'wsd'",
    ),
    "a target": (
        {"decision": {"target": 3.0}, "training": {"evaluations": 50}},
        "cannot be combined with decision.target, which has no ladder",
    ),
    "a forecast": (
        {"target": {"parameters": 1e9, "tokens": 1e10}},
        "with target.parameters, whose forecast needs independent runs",
    ),
    "moving rates": (
        {"comparison": {"lr_exponent": -0.3}},
        "with comparison.lr_exponent, since all",
    ),
    "long warm-up": (
        {"training": {"warmup": 0.5}},
        "training.warmup = 0.5 is 600 steps of every run with trunks, and the decay of budget "
        "0.5 begins at step 480",
    ),
    "branch points that coincide": (
        {"training": {"steps": 103, "warmup": 0.0}, "comparison": {"ladder": [0.99, 1.5]}},
        "makes the decays of budgets [0.99, 1.0, 1.5] branch off at steps [82, 82, 123]",
    ),
    "a small size": (
        {"scale": {"small": {"steps": 10, "width": 32}}, "training": {"decay_share": 0.04}},
        "at scale.small, which must differ and leave at least one step each",
    ),
}


def changed(data: dict[str, Any]) -> dict[str, Any]:
    given = {k: dict(v) for k, v in data.items()}
    given["training"] = {"decay": "wsd", "trunk": True, **given.get("training", {})}
    return given


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_go_with_trunks_is_refused_in_a_line(name: str):
    data, message = REFUSED[name]
    with pytest.raises(UserError) as error:
        make_plan(changed(data))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_plan_with_trunks_comes_back_from_its_file(tmp_path: Path):
    plan = replace(PLAN, training=replace(PLAN.training, decay_share=0.3))
    (tmp_path / "plan.toml").write_text(plan_toml(plan))
    assert load_plan(tmp_path / "plan.toml") == plan
    assert "trunk" not in plan_toml(WHOLE)
    assert "decay_share" not in plan_toml(WHOLE)


def test_a_pilot_that_has_begun_without_trunks_stays_so(tmp_path: Path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "plan.toml").write_text(plan_toml(WHOLE))
    first = carry_out(WHOLE, Valley(WHOLE)).runs[0]
    assert first.outcome is not None
    RunWriter(tmp_path / "runs", first.spec, {}).finish(first.outcome)
    with pytest.raises(UserError, match=r"training\.trunk") as error:
        plan_changes(PLAN, tmp_path)
    assert "use another --out" in str(error.value)

"""A folder holds one pilot, on one text; what may change later is written down."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.pilot import run as pilot_run
from mars_optim.experiment.pilot.agenda import agenda
from mars_optim.experiment.pilot.run import adopt_plan, check_data, plan_changes, prepare_folder
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.cost import CostPlan
from mars_optim.experiment.plan.plan_file import load_plan, make_plan, plan_toml
from mars_optim.experiment.plan.target import TargetPlan
from mars_optim.experiment.records import Failure, RunWriter
from mars_optim.experiment.records.run import record_failure
from tests.support.pretend import finish, small_plan, with_seeds

PLAN = small_plan()


def adopt(plan: Plan, out: Path) -> None:
    """As a pilot does when it starts."""
    adopt_plan(plan, out, plan_changes(plan, out))


def write_run(out: Path, data: str = "a" * 64, *, finished: bool = True) -> Path:
    spec = agenda(PLAN, data, []).ready[0]
    writer = RunWriter(out / "runs", spec, {"python": "3.10.1"})
    outcome = finish(spec, 1.0).outcome
    assert outcome is not None
    if finished:
        writer.finish(outcome)
    writer.close()
    return writer.path


def amendments(out: Path) -> list[dict[str, Any]]:
    path = out / "amendments.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_first_plan_is_written_down(tmp_path: Path):
    adopt(PLAN, tmp_path)
    assert load_plan(tmp_path / "plan.toml") == PLAN
    assert amendments(tmp_path) == []


def test_the_same_plan_again_leaves_the_users_file_as_it_is(tmp_path: Path):
    text = "# my own words\n" + plan_toml(PLAN)
    (tmp_path / "plan.toml").write_text(text)
    adopt(PLAN, tmp_path)
    assert (tmp_path / "plan.toml").read_text() == text
    assert amendments(tmp_path) == []


CHANGES = [
    "training.steps=200",
    "task.width=128",
    "task.corpus=elsewhere",
    "tuning.trials=4",
    "tuning.seed=77",
    "comparison.ladder=[0.5, 3.0]",
    "comparison.seeds=[1, 3]",
    "comparison.seeds=[2, 3, 4]",
    "decision.min_saving=0.01",
    "decision.confidence=0.9",
    "arm.mars-adamw.gamma=0.05",
    "arm.adamw.lr=0.002",
]


def changed(*overrides: str) -> Plan:
    return make_plan(tomllib.loads(plan_toml(PLAN)), overrides)


@pytest.mark.parametrize("change", CHANGES)
def test_another_plan_is_refused_with_the_key_and_both_values(tmp_path: Path, change: str):
    adopt(PLAN, tmp_path)
    write_run(tmp_path)
    with pytest.raises(UserError) as error:
        adopt(changed(change), tmp_path)
    key, _, value = change.partition("=")
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'plan.toml'} holds another plan ({key}: ")
    assert f", {value} now)" in message
    assert "use another --out" in message
    assert "\n" not in message
    assert load_plan(tmp_path / "plan.toml") == PLAN
    assert amendments(tmp_path) == []


LATER = {
    "[cost]": "cost.price_per_hour=3.0",
    "[target]": "target.pilot_parameters=1e6",
    "[sensitivity]": "sensitivity.gammas=[0.0]",
    "[running]": "running.limit_minutes=5.0",
    "comparison.others": 'comparison.others="after-go"',
    "comparison.rungs": 'comparison.rungs="as-read"',
    "comparison.seeds": "comparison.seeds=[1, 2, 3]",
    "tuning.more_seeds": "tuning.more_seeds=[9]",
}


@pytest.mark.parametrize("named", LATER)
def test_a_refusal_names_what_may_still_change(tmp_path: Path, named: str):
    adopt(PLAN, tmp_path)
    write_run(tmp_path)
    with pytest.raises(UserError) as error:
        adopt(changed(CHANGES[0]), tmp_path)
    assert named in str(error.value).partition("leave the option out.")[2]
    adopt(changed(LATER[named]), tmp_path)


@pytest.mark.parametrize("seeds", [(2, 3, 1), (4, 1, 2, 3)])
def test_the_seeds_that_have_a_ladder_stay_the_first(tmp_path: Path, seeds: tuple[int, ...]):
    comparison = replace(PLAN.comparison, seeds=(1, 2, 3), ladder_seeds=2)
    plan = replace(PLAN, comparison=comparison)
    adopt(plan, tmp_path)
    write_run(tmp_path)
    with pytest.raises(UserError, match=r"\(comparison.seeds: .*seeds added at the end"):
        adopt(with_seeds(plan, seeds), tmp_path)
    for kept in ((2, 1, 3), (1, 2, 3, 4)):
        adopt(with_seeds(plan, kept), tmp_path)


def test_more_seeds_may_have_a_ladder_later_and_not_fewer(tmp_path: Path):
    plans = [
        replace(PLAN, comparison=replace(PLAN.comparison, seeds=(1, 2, 3), ladder_seeds=few))
        for few in (0, 1, 2)
    ]
    adopt(plans[1], tmp_path)
    write_run(tmp_path)
    adopt(plans[2], tmp_path)
    for fewer in plans[:2]:
        with pytest.raises(UserError, match=r"\(comparison.ladder_seeds: "):
            adopt(fewer, tmp_path)


@pytest.mark.parametrize("change", CHANGES)
def test_plan_may_change_before_first_run_and_is_timed_again(tmp_path: Path, change: str):
    adopt(PLAN, tmp_path)
    (tmp_path / "probe.json").write_text("{}")
    adopt(changed(change), tmp_path)
    for path in (tmp_path / "plan.toml", tmp_path / "runs" / "plan.toml"):
        assert load_plan(path) == changed(change)
    assert amendments(tmp_path) == []
    assert not (tmp_path / "probe.json").exists()


def test_failed_run_freezes_no_plan_but_a_run_under_way_does(tmp_path: Path):
    adopt(PLAN, tmp_path)
    spec = agenda(PLAN, "a" * 64, []).ready[0]
    record_failure(tmp_path / "runs", spec, Failure("failed", "its command has no such option"))
    adopt(changed(CHANGES[0]), tmp_path)
    writer = RunWriter(tmp_path / "runs", replace(spec, seed=9), {})
    writer.row(step=1, loss=2.0)
    writer.close()
    with pytest.raises(UserError, match="holds another plan"):
        adopt(PLAN, tmp_path)


def test_every_key_that_differs_is_named_and_no_other(tmp_path: Path):
    adopt(PLAN, tmp_path)
    write_run(tmp_path)
    other = changed(
        "training.steps=200", "task.heads=4", "cost.currency=EUR", "comparison.seeds=[1, 2, 3]"
    )
    with pytest.raises(UserError) as error:
        adopt(other, tmp_path)
    assert "training.steps: 100, 200" in str(error.value)
    assert "task.heads: 2, 4" in str(error.value)
    assert "currency" not in str(error.value)
    assert "seeds:" not in str(error.value)


def test_other_arms_are_refused(tmp_path: Path):
    adopt(PLAN, tmp_path)
    write_run(tmp_path)
    with pytest.raises(UserError, match=r"arms: \['adamw', 'nadamw', 'mars-adamw'\], \['adamw', "):
        adopt(small_plan(arms=("adamw", "mars-adamw")), tmp_path)


@pytest.mark.parametrize(
    ("plan", "change"),
    [
        (with_seeds(PLAN, (1, 2, 3)), "comparison.seeds: [1, 2], [1, 2, 3]"),
        (
            replace(PLAN, cost=CostPlan(price_per_hour=2.5)),
            "cost.price_per_hour: 0.0, 2.5",
        ),
        (replace(PLAN, cost=CostPlan(currency="EUR")), "cost.currency: USD, EUR"),
    ],
)
def test_seeds_can_be_added_and_costs_changed_which_is_noted(
    tmp_path: Path, plan: Plan, change: str
):
    adopt(PLAN, tmp_path)
    write_run(tmp_path)
    adopt(plan, tmp_path)
    assert load_plan(tmp_path / "plan.toml") == plan
    (note,) = amendments(tmp_path)
    assert note["changes"] == [change]
    assert note["date"].endswith("+00:00")


def test_a_target_can_be_set_after_the_runs_which_is_noted(tmp_path: Path):
    adopt(PLAN, tmp_path)
    write_run(tmp_path)
    adopt(replace(PLAN, target=TargetPlan(parameters=1e9, tokens=2e10)), tmp_path)
    (note,) = amendments(tmp_path)
    assert note["changes"][1] == "target.parameters: None, 1000000000.0"


def test_each_amendment_is_kept(tmp_path: Path):
    write_run(tmp_path)
    for seeds in ((1, 2), (1, 2, 3), (1, 2, 3, 4), (1, 2, 3, 4)):
        adopt(with_seeds(PLAN, seeds), tmp_path)
    assert [note["changes"] for note in amendments(tmp_path)] == [
        ["comparison.seeds: [1, 2], [1, 2, 3]"],
        ["comparison.seeds: [1, 2, 3], [1, 2, 3, 4]"],
    ]


@pytest.mark.parametrize("change", ["decision.min_saving=0.01", "training.steps=200"])
def test_a_plan_edited_in_the_folder_is_refused_or_noted(tmp_path: Path, change: str):
    """The rule was fixed before the runs: whoever changes it later is seen to have done so."""
    adopt(PLAN, tmp_path)
    write_run(tmp_path)
    (tmp_path / "plan.toml").write_text(plan_toml(changed(change)))
    try:
        adopt(load_plan(tmp_path / "plan.toml"), tmp_path)
    except UserError:
        return
    assert amendments(tmp_path)


def test_a_damaged_plan_in_the_folder_is_refused_by_name(tmp_path: Path):
    (tmp_path / "plan.toml").write_text("training = ")
    with pytest.raises(UserError, match=r"plan\.toml is no valid TOML"):
        adopt(PLAN, tmp_path)


def test_data_check_passes_for_equal_data_and_for_empty_folder(tmp_path: Path):
    check_data(tmp_path, "a" * 64)
    write_run(tmp_path, "a" * 64)
    check_data(tmp_path, "a" * 64)


def test_run_on_other_data_is_refused_with_hashes_and_python(tmp_path: Path):
    path = write_run(tmp_path, "a" * 64)
    with pytest.raises(UserError) as error:
        check_data(tmp_path, "b" * 64)
    message = str(error.value)
    for part in (str(path), "a" * 12, "b" * 12, "3.10.1", "code of the task", "use another --out"):
        assert part in message
    assert "\n" not in message


def test_an_unfinished_run_on_other_data_is_in_nobodys_way(tmp_path: Path):
    write_run(tmp_path, "a" * 64, finished=False)
    check_data(tmp_path, "b" * 64)


def test_folder_is_made_with_parents_and_may_exist_before(tmp_path: Path):
    out = tmp_path / "a" / "b"
    for _ in range(2):
        prepare_folder(out)
        assert (out / "runs").is_dir()


def test_a_file_in_place_of_the_folder_is_refused_and_left_alone(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(UserError, match=f"--out {path} cannot be used: "):
        prepare_folder(path)
    with pytest.raises(UserError, match=f"--out {path / 'below'} cannot be used: "):
        prepare_folder(path / "below")
    assert path.read_text() == "precious"


def read_only_folder(tmp_path: Path) -> Path:
    if os.geteuid() == 0:  # root writes everywhere but here
        return Path("/proc/self/mars-pilot")
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    return folder / "mars-pilot"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place where nobody can write")
def test_a_place_that_cannot_be_written_to_is_refused_by_name(tmp_path: Path):
    out = read_only_folder(tmp_path)
    with pytest.raises(UserError) as error:
        prepare_folder(out)
    assert str(error.value).startswith(f"--out {out} cannot be used: ")


def test_a_full_disk_is_refused_before_any_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(pilot_run.shutil, "disk_usage", lambda path: usage._replace(free=2**26 - 1))
    with pytest.raises(UserError, match=f"--out {tmp_path}: less than 64 MiB of disk are free"):
        prepare_folder(tmp_path)
    monkeypatch.setattr(pilot_run.shutil, "disk_usage", lambda path: usage._replace(free=2**26))
    prepare_folder(tmp_path)

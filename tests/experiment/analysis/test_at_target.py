"""The forecast at a plan's target, from a pilot's own runs."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.analysis import Analysis, analyse
from mars_optim.experiment.analysis.at_target import foretold
from mars_optim.experiment.analysis.pilot_rows import PilotRows, read_pilots
from mars_optim.experiment.analysis.stats import saved
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.target import TargetPlan
from mars_optim.experiment.report import Messages
from mars_optim.experiment.report.sections import at_target, cost
from mars_optim.experiment.report.verdict_json import verdict_data
from tests.support.scaled_pilot import GAINS, ONE_SIZE, SCALED, write_scaled


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    return analyse(write_scaled(tmp_path_factory.mktemp("scaled")))


def rows_of(out: Path, plan: Plan = SCALED, **options: object) -> PilotRows:
    write_scaled(out, plan, **options)  # type: ignore[arg-type]
    return read_pilots([out])[1]


@pytest.mark.slow_but_one
def test_the_forecast_holds_the_law_behind_the_runs(scaled: Analysis) -> None:
    found = scaled.at_target
    assert found is not None
    assert found.log_ratio is not None
    truth = GAINS["mars-adamw"] * 64**-0.2
    assert found.log_ratio.low < truth < found.log_ratio.high
    ratio = found.arms["mars-adamw"].token_ratio
    assert ratio is not None
    assert math.log(ratio.low95) == pytest.approx(found.log_ratio.low)
    assert scaled.real_log_ratio == found.log_ratio


@pytest.mark.slow
def test_money_and_hours_are_the_forecasts(scaled: Analysis) -> None:
    assert scaled.money is not None
    assert scaled.real_log_ratio is not None
    assert scaled.money.job.tokens == SCALED.target.tokens
    assert scaled.money.share.mean == pytest.approx(saved(scaled.real_log_ratio.mean))
    assert scaled.candidate.log_ratio is not None
    assert scaled.money.share.mean < saved(scaled.candidate.log_ratio.mean) - 0.03
    texts = str(cost.section(scaled, Messages(), Path("x")))
    assert "from the forecast at the real job's 64 M parameters" in texts
    assert "as forecast" in cost.hours_tile(scaled, Messages()).detail


@pytest.mark.slow
def test_the_report_shows_the_fan_to_the_target(scaled: Analysis) -> None:
    section = at_target.section(scaled, Messages())
    picture = next(b for b in section.blocks if b.kind == "picture")
    assert picture.svg.count("<svg") == 2
    sizes = [row[0].text for row in picture.data.rows]
    assert {"1 M", "64 M"} <= {*sizes}
    assert "badly" in str(section.blocks[-1])
    assert "changed their sign" not in str(section.blocks[-1])
    shorter = tuple(replace(size, tokens=size.tokens // 50) for size in scaled.sizes)
    short = replace(scaled, sizes=shorter)
    assert "changed their sign" in str(at_target.section(short, Messages()).blocks[-1])
    (reason,) = [r for r in scaled.verdict.reasons if r.code == "at-target.forecast"]
    assert "64 M parameters and 1.28 B tokens" in Messages().finding(reason)


@pytest.mark.slow
def test_verdict_json_carries_the_forecast(scaled: Analysis) -> None:
    data = verdict_data(scaled)["at_target"]
    assert data["target"]["parameters"] == 6.4e7
    assert set(data["arms"]) == {"nadamw", "mars-adamw"}
    assert next(iter(data["arms"]["nadamw"]["token_ratio"])) == "mean"
    assert data["fan"]["sizes"][-1]["parameters"] == pytest.approx(6.4e7)
    assert data["tokens_saved"]["low"] < data["tokens_saved"]["mean"]


@pytest.mark.slow
def test_one_size_answers_for_longer_runs_of_it_only(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, ONE_SIZE)
    told = foretold(rows, "adamw", 1e6, 6.4e8)[2].arms["mars-adamw"]
    assert told.token_ratio
    assert told.token_ratio.low95 < math.exp(GAINS["mars-adamw"]) < told.token_ratio.high95
    beyond = foretold(rows, "adamw", 4e6, 6.4e8)[2].arms["mars-adamw"]
    assert "share one size" in str(beyond.refusal)


@pytest.mark.slow
def test_a_refused_forecast_leaves_the_pilots_own_hours(tmp_path: Path) -> None:
    found = analyse(write_scaled(tmp_path, ONE_SIZE))
    assert found.at_target is not None
    assert found.at_target.fan is None
    assert found.real_log_ratio == found.candidate.log_ratio
    assert "there is no forecast" in str(cost.section(found, Messages(), tmp_path))
    section = at_target.section(found, Messages())
    assert [b.kind for b in section.blocks] == ["bullets"]
    assert "best value for its price: adamw and mars-adamw at 2e+06 parameters" in str(
        section.blocks
    )
    assert verdict_data(found)["at_target"]["tokens_saved"] is None
    assert "no forecast" in Messages().finding(found.verdict.reasons[-1])


def test_without_a_target_nothing_is_said(tmp_path: Path) -> None:
    found = analyse(write_scaled(tmp_path, replace(SCALED, target=TargetPlan())))
    assert found.at_target is None
    assert at_target.section(found, Messages()).blocks == ()
    assert "at_target" not in verdict_data(found)


@pytest.mark.slow
def test_an_arm_that_diverged_is_refused(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, lost=frozenset({("mars-adamw", 2)}))
    told = foretold(rows, "adamw", 6.4e7, 1.28e9)[2].arms
    assert (
        told["mars-adamw"].refusal
        == "mars-adamw diverged in 1 of its runs, so it has no token ratio"
    )
    assert told["nadamw"].token_ratio


def test_a_baseline_that_diverged_is_an_error(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, lost=frozenset({("adamw", 2)}))
    with pytest.raises(UserError, match="adamw diverged in 3 of its runs"):
        foretold(rows, "adamw", 6.4e7, 1.28e9)


def test_of_equal_lengths_the_run_tuned_nearest_stands(tmp_path: Path) -> None:
    plan = replace(ONE_SIZE, scale={"long": replace(ONE_SIZE.scale["long"], steps=2000)})
    rows = rows_of(tmp_path, plan)
    mine = [r for r in rows.rows if r.arm == "adamw" and r.tokens == 2000 * 20_000]
    assert sorted(r.seed for r in mine) == ["1", "2", "3"]
    own = replace(plan.training, steps=2000)
    ids = {path.name for path in (tmp_path / "runs").glob("adamw-*steps2000-*")}
    assert len(ids) == 6  # the rung and the other length's own budget
    manifests = [Path(r.place, "manifest.json").read_text() for r in mine]
    assert all(f'"steps": {own.steps}' in text.split('"training"')[1] for text in manifests)


def test_what_runs_do_not_tell_the_plan_can(tmp_path: Path) -> None:
    one = replace(ONE_SIZE, target=TargetPlan())
    with pytest.raises(
        UserError, match=r"--out .*a --set target\.pilot_parameters=1e6` gives them"
    ):
        rows_of(tmp_path / "a", one, recorded=False)
    said = replace(one, target=TargetPlan(pilot_parameters=1e6))
    with pytest.raises(UserError, match=r"target\.pilot_tokens_per_step"):
        rows_of(tmp_path / "b", said, recorded=False)
    both = TargetPlan(pilot_parameters=1e6, pilot_tokens_per_step=2e4)
    told = rows_of(tmp_path / "c", replace(one, target=both), recorded=False).rows
    known = rows_of(tmp_path / "d", one).rows
    assert [(r.parameters, r.tokens) for r in told] == [(r.parameters, r.tokens) for r in known]


def test_pilots_on_other_data_or_with_other_arms_are_refused(tmp_path: Path) -> None:
    first = write_scaled(tmp_path / "a", ONE_SIZE)
    other = write_scaled(tmp_path / "b", ONE_SIZE, data="another text")
    with pytest.raises(UserError, match="different data"):
        read_pilots([first, other])
    arms = ONE_SIZE.arm | {"mars-adamw": replace(ONE_SIZE.arm["mars-adamw"], gamma=0.05)}
    third = write_scaled(tmp_path / "c", replace(ONE_SIZE, arm=arms))
    with pytest.raises(UserError, match=r"'mars-adamw' has gamma = 0\.025 in .* and 0\.05 in"):
        read_pilots([first, third])
    with pytest.raises(UserError, match="is the same as"):
        read_pilots([first, first])


@pytest.mark.parametrize(
    ("change", "refused"),
    [({"cautious": True}, "cautious"), ({"clip_over": "global"}, "clip_over"), ({"lr": 0.5}, "")],
    ids=["cautious", "clip_over", "lr"],
)
def test_one_name_is_one_optimizer_in_any_two_pilots(
    tmp_path: Path, change: dict[str, Any], refused: str
) -> None:
    against = replace(ONE_SIZE.comparison, candidate="nadamw")
    alone = replace(ONE_SIZE, arms=("adamw", "nadamw"), arm={}, comparison=against)
    plans = [alone, ONE_SIZE]
    own = ONE_SIZE.arm["mars-adamw"]
    plans.append(replace(ONE_SIZE, arm=ONE_SIZE.arm | {"mars-adamw": replace(own, **change)}))
    folders = [write_scaled(tmp_path / str(i), plan) for i, plan in enumerate(plans)]
    if not refused:
        assert read_pilots(folders)
        return
    with pytest.raises(UserError, match=f"'mars-adamw' has {refused} = .* give one of them"):
        read_pilots(folders)


@pytest.mark.slow
def test_pilots_of_one_size_each_go_together(tmp_path: Path) -> None:
    folders = []
    for width in (64, 128, 256):
        task = replace(SCALED.task, width=width)
        plan = replace(SCALED, task=task, scale={}, target=TargetPlan())
        folders.append(write_scaled(tmp_path / str(width), plan))
    rows = read_pilots(folders)[1].rows
    assert {r.parameters for r in rows} == {1e6, 4e6, 1.6e7}
    told = foretold(PilotRows(rows, Counter(), 0), "adamw", 3.2e7, 6.4e7)[2]
    assert told.arms["mars-adamw"].token_ratio

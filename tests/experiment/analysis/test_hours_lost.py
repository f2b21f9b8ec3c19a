"""A go in tokens whose steps take so much longer that it surely costs hours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mars_optim.cli import main
from mars_optim.experiment.analysis import Analysis, ArmResult, next_step
from mars_optim.experiment.analysis.action import action
from mars_optim.experiment.analysis.aftermath import aftermath
from mars_optim.experiment.analysis.cost import money_of
from mars_optim.experiment.analysis.hours import hours_lost
from mars_optim.experiment.analysis.money import StepTime
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.report.messages import LANGS, Messages
from mars_optim.experiment.report.sections.action_line import action_line
from mars_optim.files import read_json, write_json
from tests.experiment.analysis.test_stages import CLEAR, analysis_of
from tests.support.results import candidate_at
from tests.support.rollout_files import BETTER, OPEN, WORSE, write_canary
from tests.support.written_pilot import write_pilot

CLEARLY_MORE = candidate_at(*CLEAR, bounds=["at least"])


def at_step_time(ratio: float, candidate: ArmResult | None = None) -> Analysis:
    """A go whose steps take this much longer."""
    arm = replace(candidate or candidate_at(*CLEAR), step_time=(ratio, ratio, ratio))
    made = analysis_of(arm)
    assert arm.log_ratio is not None
    step = StepTime(ratio=ratio, low=ratio, high=ratio, rounds=15)
    cost = money_of(made.plan.cost, arm.log_ratio, step, confidence=0.95, pilot_seconds=1.0)
    return replace(made, money=cost)


@pytest.mark.parametrize(
    ("ratio", "candidate", "code"),
    [
        (1.0, None, "switch"),
        (1.15, None, "switch"),  # zero lies inside the interval of the hours
        (1.3, None, "do-not.hours-pilot"),
        (1.3, CLEARLY_MORE, "switch"),  # the saving may be larger
    ],
)
def test_no_switch_is_advised_where_hours_surely_rise(
    ratio: float, candidate: ArmResult | None, code: str
) -> None:
    made = action(at_step_time(ratio, candidate))
    assert made.code == code
    assert made.kind == ("switch" if code == "switch" else "do-not-switch")


@pytest.mark.parametrize(
    ("differences", "pilot", "canary", "code"),
    [
        (BETTER, 1.3, 1.02, "switch.canary"),
        (BETTER, 1.0, 1.3, "do-not.hours-canary"),
        (OPEN, 1.0, 1.3, "do-not.hours-canary"),
        (WORSE, 1.3, 1.3, "do-not.canary"),
    ],
)
def test_the_step_time_of_the_canary_goes_before_the_pilots(
    tmp_path: Path, differences: tuple[float, ...], pilot: float, canary: float, code: str
) -> None:
    write_canary(tmp_path / "canary.json", differences, step_time=canary)
    happened = aftermath(Plan(), tmp_path)
    assert action(replace(at_step_time(pilot), aftermath=happened)).code == code


def test_production_is_not_next_where_the_canarys_steps_cost_hours(tmp_path: Path) -> None:
    for step_time, following in ((1.02, "production"), (1.3, None)):
        write_canary(tmp_path / "canary.json", BETTER, step_time=step_time)
        made = replace(at_step_time(1.0), aftermath=aftermath(Plan(), tmp_path))
        stage = next_step(made)
        assert (stage and stage.key) == following


def test_without_hours_nothing_is_said_of_them() -> None:
    assert hours_lost(replace(at_step_time(1.3), money=None)) is None


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("place", ["pilot", "canary"])
def test_the_line_says_how_long_a_step_takes(tmp_path: Path, lang: str, place: str) -> None:
    made = at_step_time(1.3)
    if place == "canary":
        write_canary(tmp_path / "canary.json", step_time=1.3)
        made = replace(made, aftermath=aftermath(Plan(), tmp_path))
    said = action_line(made, action(made), Messages(lang))  # type: ignore[arg-type]
    assert "1.30" in said
    assert said.endswith("." if lang == "en" else "。")


def test_the_report_gives_the_hours_as_a_reason(tmp_path: Path) -> None:
    write_pilot(tmp_path, speedup=1.2)
    rows = read_json(tmp_path / "probe.json")
    rows["mars-adamw"] |= dict(ratio=1.4, ratio_low=1.39, ratio_high=1.41)
    write_json(tmp_path / "probe.json", rows)
    assert main(["report", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "verdict.json").read_text())
    assert (found["verdict"], found["action"]["kind"]) == ("go", "do-not-switch")
    assert any(reason.startswith("A step takes 1.40 times") for reason in found["reasons"])
    assert found["hours_saved"]["high"] < 0

"""The last line of ``mars plan --budget``: a command that can be copied, or why there is none."""

from __future__ import annotations

import shlex
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from mars_optim.cli import main
from mars_optim.cli.budget import lines, weighed
from mars_optim.experiment.analysis.cost import pilot_price
from mars_optim.experiment.pilot.forecast import Forecast
from mars_optim.experiment.pilot.worth import Prior, budget_of
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.plan_file import load_plan, make_plan, plan_toml
from mars_optim.experiment.plan.written import plain
from tests.support.budgets import BROAD, PLAN, forecast


def settings(command: str) -> tuple[str, ...]:
    words = shlex.split(command)
    return tuple(after for word, after in pairwise(words) if word == "--set")


def test_hours_hold_a_pilot_whose_machine_has_its_own_price():
    plan = replace(PLAN, cost=replace(PLAN.cost, pilot_price_per_hour=6.0))
    found = weighed(budget_of(plan, None, None, 50.0), forecast(), 50.0, BROAD, 1)
    assert found.options is not None
    made = make_plan(plain(plan), settings(found.options))
    assert (made.cost.budget, pilot_price(made.cost), made.cost.currency) == (50.0, 1.0, "h")


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def known(plan: Plan, out: Path, **rest: object) -> Forecast:
        return forecast()

    monkeypatch.setattr("mars_optim.experiment.pilot.forecast.forecast", known)


@pytest.mark.usefixtures("no_training")
def test_the_best_command_runs_the_plan_that_was_weighed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file, out = tmp_path / "my plan.toml", tmp_path / "my pilot"
    file.write_text(plan_toml(PLAN))
    own = ("task.width=32", "cost.planned_hours=400000", 'arms=["adamw", "mars-adamw"]')
    given = ["--plan", str(file), "--out", str(out), "--workers", "2"]
    given += [word for setting in own for word in ("--set", setting)]
    assert main(["plan", *given, "--budget", "100"]) == 0
    command = capsys.readouterr().out.splitlines()[-1].removeprefix("  Best: ")
    words = shlex.split(command)
    assert words[: 2 + len(given)] == ["mars", "pilot", *given]
    made = load_plan(file, settings(command))
    assert (made.task, made.cost.budget) == (replace(PLAN.task, width=32), 100.0)


@pytest.mark.usefixtures("no_training")
def test_the_best_command_leaves_defaults_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mars_optim.cli.pilot.built_in_plan", partial(make_plan, plain(PLAN)))
    job = ["--set", "cost.planned_hours=400000"]
    assert main(["plan", *job, "--budget", "100", "--price", "2"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("  Best: mars pilot --set cost.planned_hours=400000 --set ")


def test_a_go_that_the_step_time_eats_is_told_from_a_price():
    prior = Prior(mean=0.06, sd=0.08)
    slow, fast = (
        lines(weighed(PLAN, forecast(ratio=ratio), 100.0, prior, 1))[-1] for ratio in (1.3, 1.0)
    )
    assert "a step takes 1.30 times as long" in slow
    assert "only where more than 26.9% of the tokens are saved" in slow
    assert "costs more" not in slow
    assert "mars pilot --set" in fast

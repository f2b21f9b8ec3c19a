"""A pilot's budget: nothing starts that it does not pay for, and nothing runs when it is spent."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mars_optim.cli import main
from mars_optim.errors import UserError
from mars_optim.experiment.executors.base import Event
from mars_optim.experiment.pilot import spending as spending_module
from mars_optim.experiment.pilot.progress import Reporter
from mars_optim.experiment.pilot.retries import Retries, Timing
from mars_optim.experiment.pilot.run import _run_all
from mars_optim.experiment.pilot.spending import FILE, LOST, Spending
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.cost import CostPlan
from mars_optim.experiment.records import RunWriter
from tests.support.pretend import DATA, Valley, finish, small_plan

PLAN = small_plan(arms=("adamw", "mars-adamw"))
TIMINGS = {arm: Timing(1.0) for arm in PLAN.arms}  # seconds a step; runs have 50 to 200 steps


def with_budget(hours: float) -> Plan:
    return replace(PLAN, cost=CostPlan(price_per_hour=1.0, budget=hours))


class Machine:
    """Workers whose runs take a number of seconds a step, on a clock of their own."""

    def __init__(self, plan: Plan, out: Path, count: int = 1, slower: float = 1.0) -> None:
        self.count, self.sharing = count, 1  # they do not slow each other down
        self.now, self._slower, self._loss, self._out = 0.0, slower, Valley(plan), out
        self._ends: dict[str, tuple[float, RunSpec]] = {}
        self.started: list[RunSpec] = []

    @property
    def running(self) -> list[RunSpec]:
        return [spec for _, spec in self._ends.values()]

    @property
    def busy(self) -> int:
        return len(self._ends)

    @property
    def free(self) -> int:
        return self.count - self.busy

    def give(self, work: Any, seconds: float = math.inf) -> None:
        self.started.append(work)
        self._ends[work.run_id] = (self.now + work.steps * self._slower, work)

    def events(self, timeout: float) -> Iterator[Event]:
        self.now += 25 * timeout
        for run_id, (end, spec) in list(self._ends.items()):
            if end <= self.now:
                del self._ends[run_id]
                run = finish(spec, self._loss(spec))
                assert run.outcome is not None
                RunWriter(self._out / "runs", spec, {}).finish(run.outcome)
                yield Event("done", run_id, run.outcome)


def carry_out(plan: Plan, out: Path, machine: Machine) -> tuple[dict[str, Any], Spending, str]:
    console = Console(file=io.StringIO(), width=300)
    spending = Spending(plan, out, clock=lambda: machine.now)
    tries = Retries(plan.running, TIMINGS, machine.sharing)
    with Reporter(console) as reporter:
        missing = _run_all(plan, out, DATA, machine, reporter, tries, spending)  # type: ignore[arg-type]
    spending.close()
    assert isinstance(console.file, io.StringIO)
    return missing, spending, console.file.getvalue()


@pytest.mark.parametrize("count", [1, 3])
def test_no_run_starts_that_the_budget_does_not_pay_for(tmp_path: Path, count: int):
    plan = with_budget(0.3 / count)
    machine = Machine(plan, tmp_path, count)
    missing, spending, said = carry_out(plan, tmp_path, machine)
    assert 0 < spending.seconds <= 0.3 / count * 3600
    assert missing
    assert not machine.busy  # each run that started has ended
    assert "The budget ends the pilot" in said
    assert "Raise cost.budget" in said


def test_a_run_that_is_slower_than_probed_ends_with_the_budget(tmp_path: Path):
    plan = with_budget(0.1)
    machine = Machine(plan, tmp_path, slower=100.0)
    missing, spending, _ = carry_out(plan, tmp_path, machine)
    assert 360 <= spending.seconds <= 385  # one beat of the loop more at the most
    assert machine.started[0].run_id in missing


def test_sessions_share_one_budget_and_a_larger_one_goes_on(tmp_path: Path):
    plan = with_budget(0.3)
    first = Machine(plan, tmp_path)
    _, spending, _ = carry_out(plan, tmp_path, first)
    again = Machine(plan, tmp_path)
    _, after, _ = carry_out(plan, tmp_path, again)
    assert not again.started
    assert after.seconds == pytest.approx(spending.seconds)
    whole = with_budget(50.0)
    missing, _, said = carry_out(whole, tmp_path, Machine(whole, tmp_path))
    assert not missing
    assert "The budget ends" not in said


def test_without_a_budget_all_is_run_and_the_time_is_counted(tmp_path: Path):
    missing, free, _ = carry_out(PLAN, tmp_path, Machine(PLAN, tmp_path, 4))
    assert not missing
    assert free.seconds > 0
    later = Spending(with_budget(1.0), tmp_path)
    assert (later.seconds, later.unknown) == (free.seconds, "")


def test_time_before_the_first_count_is_said_to_be_unknown(tmp_path: Path):
    """The folder is of a program that counted no time without a budget."""
    carry_out(PLAN, tmp_path, Machine(PLAN, tmp_path, 4))
    (tmp_path / FILE).unlink()
    assert Spending(PLAN, tmp_path).unknown == ""
    Spending(PLAN, tmp_path).close()
    assert "not known" in Spending(with_budget(1.0), tmp_path).unknown


@pytest.mark.parametrize("hours", [0.0, 1.0])
def test_only_a_budget_needs_its_count_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: float
):
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(spending_module, "write_json", full)
    spending = Spending(with_budget(hours), tmp_path)
    with pytest.raises(OSError, match="no space") if hours else contextlib.nullcontext():
        spending.close()


def test_time_in_a_queue_is_not_paid(tmp_path: Path):
    now = [0.0]
    spending = Spending(with_budget(1.0), tmp_path, clock=lambda: now[0])
    now[0] = 100.0
    spending.beat(paid=False)
    now[0] = 130.0
    spending.beat()
    assert spending.seconds == 30.0


def test_seconds_are_written_while_the_pilot_works(tmp_path: Path):
    now = [0.0]
    spending = Spending(with_budget(1.0), tmp_path, clock=lambda: now[0])
    now[0] = 5.0
    spending.beat()
    assert json.loads((tmp_path / FILE).read_text()) == {"seconds": 5.0}


@pytest.mark.parametrize("text", ["{}", "[]", '{"seconds": -1}', '{"seconds": "x"}', "1e999"])
def test_a_damaged_record_of_what_was_spent_is_named(tmp_path: Path, text: str):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=r"spent\.json"):
        Spending(with_budget(1.0), tmp_path)


def test_a_budget_without_a_price_is_refused():
    with pytest.raises(UserError, match=r"cost\.budget = 5 needs a price"):
        replace(PLAN, cost=CostPlan(budget=5.0))


def test_a_budget_spent_before_the_first_run_is_told_as_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mars_optim.experiment.pilot.run.run_pilot", lambda *_: {"a": LOST})
    assert main(["pilot", "--init", "--out", str(tmp_path)]) == 0
    with pytest.raises(SystemExit, match="3"):
        main(["pilot", "--out", str(tmp_path)])
    error = capsys.readouterr().err
    assert "no finished run: the pilot's budget is spent; raise cost.budget" in error
    assert "tried" not in error

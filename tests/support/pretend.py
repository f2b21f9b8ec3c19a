"""Pilots without training: a loss is a function of the spec."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mars_optim.experiment.pilot.agenda import Agenda, agenda, tuning_trials
from mars_optim.experiment.plan import Plan, RunSpec
from mars_optim.experiment.plan.comparison import ComparisonPlan
from mars_optim.experiment.plan.plan import TrainingPlan
from mars_optim.experiment.plan.tuning import TuningPlan
from mars_optim.experiment.records import Outcome, Run

DATA = "data"
Loss = Callable[[RunSpec], float | None]


def small_plan(**options: Any) -> Plan:
    """Three arms, two seeds, a ladder of three budgets."""
    tuning = {
        k: options.pop(k) for k in ("trials", "max_trials", "factor", "more_seeds") if k in options
    }
    comparison = {k: options.pop(k) for k in ("seeds", "ladder") if k in options}
    return Plan(
        training=TrainingPlan(steps=options.pop("steps", 100)),
        tuning=TuningPlan(**{"trials": 5, "max_trials": 16, **tuning}),
        comparison=ComparisonPlan(**{"seeds": (1, 2), "ladder": (0.5, 2.0), **comparison}),
        **options,
    )


@dataclass
class Valley:
    """A loss with one lowest point in log2(lr / the arm's default), and a cliff.

    Args:
        optimum: of each arm, in doublings of its default; 0 unless given.
        cliff: from where on runs diverge, likewise; never unless given.
    """

    plan: Plan
    optimum: Mapping[str, float] = field(default_factory=dict)
    cliff: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, spec: RunSpec) -> float | None:
        doublings = math.log2(spec.lr / spec.arm.lr)
        if doublings >= self.cliff.get(spec.arm_name, math.inf):
            return None
        distance = doublings - self.optimum.get(spec.arm_name, 0.0)
        return 3.0 + 0.1 * distance**2 + 0.01 * spec.seed - 0.1 * math.log(spec.steps)


def finish(spec: RunSpec, loss: float | None) -> Run:
    """The run as it would be read back."""
    outcome = Outcome(
        status="finished" if loss is not None else "diverged",
        final_loss=loss,
        steps=spec.steps,
        tokens=spec.steps,
        seconds=1.0,
        parameters=1,
        state_bytes=8,
    )
    return Run(path=Path(spec.run_id), spec=spec, outcome=outcome, environment={})


@dataclass
class Pilot:
    """Course of a pretended pilot: its runs in the order of finishing, and the last agenda."""

    runs: list[Run]
    last: Agenda

    @property
    def ids(self) -> set[str]:
        return {run.spec.run_id for run in self.runs}

    def purpose(self, *purposes: str) -> list[RunSpec]:
        return [run.spec for run in self.runs if run.spec.purpose in purposes]


def carry_out(
    plan: Plan,
    loss: Loss,
    *,
    workers: int = 1,
    order: random.Random | None = None,
    done: Sequence[Run] = (),
) -> Pilot:
    """Do what the agenda says; with ``order`` the runs under way finish in random order.

    Fails if a run is handed out twice, or if nothing is ready, running or finished.
    """
    runs, running = list(done), list[RunSpec]()
    while True:
        now = agenda(plan, DATA, runs, running)
        if now.finished:
            return Pilot(runs, now)
        taken = [r.spec.run_id for r in runs] + [s.run_id for s in running]
        for spec in now.ready[: workers - len(running)]:
            assert spec.run_id not in taken, "handed out twice"
            taken.append(spec.run_id)
            running.append(spec)
        assert running, "nothing is ready, nothing runs, and yet it is not finished"
        i = order.randrange(len(running)) if order else 0
        spec = running.pop(i)
        runs.append(finish(spec, loss(spec)))


def trials_of(plan: Plan, pilot: Pilot) -> dict[str, dict[float, float | None]]:
    """Loss by learning rate, of each arm."""
    return tuning_trials(plan, pilot.runs)


def with_seeds(plan: Plan, seeds: tuple[int, ...]) -> Plan:
    """The same plan with other comparison seeds."""
    return replace(plan, comparison=replace(plan.comparison, seeds=seeds))

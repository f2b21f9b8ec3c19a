"""The next runs: a pure function of the plan and of the runs that have finished.

Nothing else is remembered, so a pilot that was stopped goes on by asking again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from ..analysis.arm_results import arm_results
from ..analysis.comparison import begun, comparison
from ..analysis.verdict import decide, settles_more
from ..plan import Arm, Plan, RunSpec
from ..plan.sizes import Size
from ..records import Run
from ..records.trials import near
from .tuning import Tuning, spec_of, tuning_of, tuning_trials

__all__ = ["Agenda", "agenda", "sensitivity_lines", "tuning_trials"]


@dataclass(frozen=True, slots=True)
class Agenda:
    """Runs that can start now, and how many are left.

    Args:
        ready: runs that can start now, in order.
        planned_steps: optimizer steps of the whole pilot as far as they are known.
        planned_runs: likewise; tuning may add rounds.
        finished: is everything done?
    """

    ready: tuple[RunSpec, ...]
    planned_steps: int
    planned_runs: int
    finished: bool


@dataclass(frozen=True, slots=True)
class _Part:
    """Part of the agenda from one size, or from the sensitivity."""

    specs: tuple[RunSpec, ...]
    planned_steps: int
    planned_runs: int


def agenda(
    plan: Plan,
    data: str,
    done: Iterable[Run],
    running: Collection[RunSpec] = (),
    given_up: Collection[str] = (),
) -> Agenda:
    """Plan the next runs: the plan's own size first, then the others, then the sensitivity.

    Args:
        plan: of the pilot.
        data: hash of the data; runs on other data do not count.
        done: runs read from disk; those without outcome are ignored.
        running: runs under way.
        given_up: ids of runs that failed too often. An arm whose tuning cannot go on is left out
            of the comparison; without the baseline or the candidate there is none.
    """
    finished = {
        r.spec.run_id: r for r in done if r.outcome and r.spec.data == data and plan.covers(r.spec)
    }
    parts = [_size(plan, size, data, finished.values(), given_up) for size in plan.sizes()]
    if plan.sensitivity.gammas:
        parts.append(_sensitivity(plan, data, finished.values(), given_up))
    taken = finished.keys() | {s.run_id for s in running} | set(given_up)
    ready = tuple(s for part in parts for s in part.specs if s.run_id not in taken)
    return Agenda(
        ready=ready,
        planned_steps=sum(part.planned_steps for part in parts),
        planned_runs=sum(part.planned_runs for part in parts),
        finished=not ready and not running,
    )


def _size(
    plan: Plan, size: Size, data: str, runs: Iterable[Run], given_up: Collection[str]
) -> _Part:
    tuning = tuning_of(plan, size, data, runs, given_up)
    specs: Iterable[RunSpec] = tuning.ready
    due = first_seeds(plan)
    if tuning.over:
        specs = _comparison(plan, size, data, tuning)
        due = _due_seeds(plan, size, runs, specs, given_up)
        specs = [spec for spec in specs if spec.seed in due]
    seeds, jobs = len(due), _budgets(plan, size, size.arms)
    tuning_runs = sum(tuning.runs.values())
    return _Part(
        specs=tuple(specs),
        planned_steps=tuning_runs * size.training.steps
        + seeds * sum(size.steps(budget) for *_, budget in jobs),
        planned_runs=tuning_runs + seeds * len(jobs),
    )


def first_seeds(plan: Plan) -> tuple[int, ...]:
    """The seeds of the comparison that are run whatever comes out."""
    return plan.comparison.seeds if plan.decision.looks == "once" else begun(plan, ())


def _due_seeds(
    plan: Plan,
    size: Size,
    runs: Iterable[Run],
    specs: Sequence[RunSpec],
    given_up: Collection[str],
) -> tuple[int, ...]:
    """The seeds of the comparison: those begun, and one more if it may change the verdict."""
    if plan.decision.looks == "once":
        return plan.comparison.seeds
    at = comparison(plan, size, runs)
    compared = (r for r in at.runs if r.spec.purpose in ("compare", "ladder"))
    due = begun(plan, {run.spec.seed for run in compared})
    done = {run.spec.run_id for run in at.runs} | set(given_up)
    judged = (plan.comparison.baseline, plan.comparison.candidate)
    pair = (s for s in specs if s.seed in due and s.arm_name in judged)
    if len(due) == len(plan.comparison.seeds) or not all(s.run_id in done for s in pair):
        return due
    arms = arm_results(at, {})
    baseline, candidate = (arms[name] for name in judged)
    missing = 0  # of what was given up nothing is waited for
    verdict = decide(plan, baseline, candidate, missing)
    more = settles_more(plan, baseline, candidate, verdict)
    return plan.comparison.seeds[: len(due) + 1] if more else due


def _budgets(plan: Plan, size: Size, arms: Iterable[str]) -> list[tuple[str, str, float]]:
    """(purpose, arm, budget) of the comparison's runs of one seed, in order."""
    ladder = sorted(plan.ladder, reverse=True)
    rungs = [("ladder", plan.comparison.baseline, budget) for budget in ladder]
    return rungs + [("compare", arm, 1.0) for arm in arms]


def _comparison(plan: Plan, size: Size, data: str, tuning: Tuning) -> list[RunSpec]:
    """Seed by seed, so that a pilot that is stopped early has whole pairs."""
    if not {plan.comparison.baseline, plan.comparison.candidate} <= set(tuning.going):
        return []
    unit = size.steps(1.0)
    return [
        spec_of(
            plan,
            size,
            data,
            purpose=purpose,
            arm_name=arm,
            lr=plan.comparison.rate_at(tuning.chosen[arm].lr, size.steps(budget) / unit),
            seed=seed,
            budget=budget,
            arm=tuning.chosen[arm].arm,
        )
        for seed in plan.comparison.seeds
        for purpose, arm, budget in _budgets(plan, size, tuning.going)
    ]


def _sensitivity(plan: Plan, data: str, runs: Iterable[Run], given_up: Collection[str]) -> _Part:
    """Equal factors of the tuned rate for the baseline and for every gamma of the candidate.

    Runs that tuning has made already are not made again.
    """
    size, lines = plan.sizes()[0], sensitivity_lines(plan)
    tuning = tuning_of(plan, size, data, runs, given_up)
    if not tuning.over or not {name for name, _ in lines} <= set(tuning.going):
        planned = len(lines) * len(plan.sensitivity.factors) if not tuning.over else 0
        return _Part((), planned * size.training.steps, planned)
    tuned = {r.spec.run_id for r in runs if r.spec.purpose == "tune"}
    trials = tuning.trials
    specs = [
        spec_of(
            plan,
            size,
            data,
            purpose="sensitivity",
            arm_name=name,
            lr=near(trials[name], factor * tuning.chosen[name].lr),
            seed=plan.tuning.seed,
            arm=arm,
        )
        for name, arm in lines
        for factor in plan.sensitivity.factors
    ]
    specs = [s for s in specs if s.run_id not in tuned]
    return _Part(tuple(specs), len(specs) * size.training.steps, len(specs))


def sensitivity_lines(plan: Plan) -> list[tuple[str, Arm]]:
    """The baseline, and the candidate at its own gamma and at the plan's."""
    baseline, candidate = plan.comparison.baseline, plan.comparison.candidate
    own = plan.arm[candidate]
    gammas = dict.fromkeys((own.gamma, *plan.sensitivity.gammas))
    lines = [(baseline, plan.arm[baseline])]
    return lines + [(candidate, replace(own, gamma=gamma)) for gamma in gammas]

"""What to run next: a pure function of the plan and of the runs that have finished.

Nothing else is remembered, so a pilot that was stopped goes on by asking again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from ..records import Arm, Plan, Run, RunSpec
from ..records.plan import Size
from ..records.trials import Trials, at_edge, best_lr, near
from .search import next_lr


@dataclass(frozen=True, slots=True)
class Agenda:
    """What can start now and how much is left.

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
    """What one size, or the sensitivity, adds to the agenda."""

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


def tuning_trials(plan: Plan, runs: Iterable[Run], size: Size | None = None) -> dict[str, Trials]:
    """Final loss by learning rate, for each arm, of the finished tuning runs at one size."""
    size = size or plan.sizes()[0]
    trials: dict[str, dict[float, float | None]] = {arm: {} for arm in size.arms}
    for run in runs:
        spec = run.spec
        here = (spec.task, spec.training) == (size.task, size.training)
        if here and spec.stage == "tune" and run.outcome and spec.arm_name in trials:
            trials[spec.arm_name][spec.lr] = run.final_loss
    return dict(trials)


def tuning_rounds(plan: Plan, trials: dict[str, Trials]) -> int:
    """Trials that every arm gets: one more while any arm's best lies at an edge."""
    rounds = min(len(t) for t in trials.values())
    if rounds < plan.tuning.trials:
        return plan.tuning.trials
    everyone_has_them = all(len(t) == rounds for t in trials.values())
    edge = any(at_edge(t) for t in trials.values())
    if everyone_has_them and not edge:
        return rounds
    return min(rounds + 1, plan.tuning.max_trials)


@dataclass(frozen=True, slots=True)
class _Tuning:
    """How far the tuning of one size is."""

    trials: dict[str, Trials]
    following: dict[str, RunSpec]  # each arm's next run
    going: tuple[str, ...]  # arms that can be tuned
    rounds: int

    @property
    def over(self) -> bool:
        """Whether every arm that can be tuned has been."""
        return all(len(self.trials[arm]) >= self.rounds for arm in self.going)


def _tuning(
    plan: Plan, size: Size, data: str, runs: Iterable[Run], given_up: Collection[str]
) -> _Tuning:
    here = [r for r in runs if (r.spec.task, r.spec.training) == (size.task, size.training)]
    trials = tuning_trials(plan, here, size)
    following = {arm: _trial(plan, size, data, arm, trials[arm]) for arm in size.arms}
    going = tuple(arm for arm in size.arms if following[arm].run_id not in given_up)
    rounds = tuning_rounds(plan, {arm: trials[arm] for arm in going}) if going else 0
    if any(run.spec.stage != "tune" for run in here):
        rounds = max(len(t) for t in trials.values())  # it has begun: no rate is tuned further
    return _Tuning(trials, following, going, rounds)


def _size(
    plan: Plan, size: Size, data: str, runs: Iterable[Run], given_up: Collection[str]
) -> _Part:
    tuning = _tuning(plan, size, data, runs, given_up)
    if tuning.over:
        specs = _comparison(plan, size, data, tuning)
    else:
        by_trials = sorted(tuning.going, key=lambda arm: len(tuning.trials[arm]))
        unfinished = [arm for arm in by_trials if len(tuning.trials[arm]) < tuning.rounds]
        specs = [tuning.following[arm] for arm in unfinished]
    seeds, jobs = len(plan.comparison.seeds), _budgets(plan, size, size.arms)
    tuning_runs = tuning.rounds * len(size.arms)
    return _Part(
        specs=tuple(specs),
        planned_steps=tuning_runs * size.training.steps
        + seeds * sum(size.steps(budget) for *_, budget in jobs),
        planned_runs=tuning_runs + seeds * len(jobs),
    )


def _trial(plan: Plan, size: Size, data: str, arm: str, trials: Trials) -> RunSpec:
    """The arm's next tuning run."""
    lr = next_lr(plan.arm[arm].lr, plan.tuning.factor, trials)
    return _spec(plan, size, data, stage="tune", arm_name=arm, lr=lr, seed=plan.tuning.seed)


def _budgets(plan: Plan, size: Size, arms: Iterable[str]) -> list[tuple[str, str, float]]:
    """(stage, arm, budget) of the comparison's runs of one seed, in order."""
    ladder = sorted(plan.comparison.ladder, reverse=True)
    rungs = [("ladder", plan.comparison.baseline, budget) for budget in ladder]
    return rungs + [("compare", arm, 1.0) for arm in arms]


def _comparison(plan: Plan, size: Size, data: str, tuning: _Tuning) -> list[RunSpec]:
    """Seed by seed, so that a pilot that is stopped early has whole pairs."""
    if not {plan.comparison.baseline, plan.comparison.candidate} <= set(tuning.going):
        return []
    return [
        _spec(
            plan,
            size,
            data,
            stage=stage,
            arm_name=arm,
            lr=best_lr(tuning.trials[arm]),
            seed=seed,
            budget=budget,
        )
        for seed in plan.comparison.seeds
        for stage, arm, budget in _budgets(plan, size, tuning.going)
    ]


def _sensitivity(plan: Plan, data: str, runs: Iterable[Run], given_up: Collection[str]) -> _Part:
    """Equal factors of the tuned rate for the baseline and for every gamma of the candidate.

    Runs that tuning has made already are not made again.
    """
    size, lines = plan.sizes()[0], sensitivity_lines(plan)
    tuning = _tuning(plan, size, data, runs, given_up)
    if not tuning.over or not {name for name, _ in lines} <= set(tuning.going):
        planned = len(lines) * len(plan.sensitivity.factors) if not tuning.over else 0
        return _Part((), planned * size.training.steps, planned)
    tuned = {r.spec.run_id for r in runs if r.spec.stage == "tune"}
    trials = tuning.trials
    specs = [
        _spec(
            plan,
            size,
            data,
            stage="sensitivity",
            arm_name=name,
            lr=near(trials[name], factor * best_lr(trials[name])),
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


def _spec(
    plan: Plan,
    size: Size,
    data: str,
    *,
    stage: str,
    arm_name: str,
    lr: float,
    seed: int,
    budget: float = 1.0,
    arm: Arm | None = None,
) -> RunSpec:
    return RunSpec(
        stage=stage,
        arm_name=arm_name,
        arm=arm or plan.arm[arm_name],
        lr=lr,
        seed=seed,
        steps=size.steps(budget),
        task=size.task,
        training=size.training,
        data=data,
    )

"""What to run next: a pure function of the plan and of the runs that have finished.

Nothing else is remembered, so a pilot that was stopped goes on by asking again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ..records import Plan, Run, RunSpec
from ..records.trials import Trials, at_edge, best_lr
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


def agenda(
    plan: Plan,
    data: str,
    done: Iterable[Run],
    running: Collection[RunSpec] = (),
    given_up: Collection[str] = (),
) -> Agenda:
    """Plan the next runs.

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
    trials = tuning_trials(plan, finished.values())
    following = {arm: _trial(plan, data, arm, trials[arm]) for arm in plan.arms}
    going = [arm for arm in plan.arms if following[arm].run_id not in given_up]
    rounds = tuning_rounds(plan, {arm: trials[arm] for arm in going}) if going else 0
    if any(run.spec.stage != "tune" for run in finished.values()):
        rounds = max(len(t) for t in trials.values())  # it has begun: no rate is tuned further
    arms, seeds = len(plan.arms), len(plan.comparison.seeds)
    comparison_budgets = [1.0] * arms + list(plan.comparison.ladder)
    planned_runs = rounds * arms + seeds * len(comparison_budgets)
    planned_steps = rounds * arms * plan.training.steps + seeds * sum(
        plan.steps(budget) for budget in comparison_budgets
    )
    if all(len(trials[arm]) >= rounds for arm in going):
        specs = _comparison(plan, data, trials, going)
    else:
        by_trials = sorted(going, key=lambda arm: len(trials[arm]))
        specs = [following[arm] for arm in by_trials if len(trials[arm]) < rounds]
    taken = finished.keys() | {s.run_id for s in running} | set(given_up)
    ready = tuple(s for s in specs if s.run_id not in taken)
    return Agenda(ready, planned_steps, planned_runs, finished=not ready and not running)


def tuning_trials(plan: Plan, runs: Iterable[Run]) -> dict[str, Trials]:
    """Final loss by learning rate, for each arm, of the finished tuning runs."""
    trials: dict[str, dict[float, float | None]] = {arm: {} for arm in plan.arms}
    for run in runs:
        if run.spec.stage == "tune" and run.outcome and run.spec.arm_name in trials:
            trials[run.spec.arm_name][run.spec.lr] = run.final_loss
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


def _trial(plan: Plan, data: str, arm: str, trials: Trials) -> RunSpec:
    """The arm's next tuning run."""
    return _spec(
        plan,
        data,
        stage="tune",
        arm_name=arm,
        lr=next_lr(plan.arm[arm].lr, plan.tuning.factor, trials),
        seed=plan.tuning.seed,
        steps=plan.training.steps,
    )


def _comparison(
    plan: Plan, data: str, trials: dict[str, Trials], arms: Collection[str]
) -> list[RunSpec]:
    """Seed by seed, so that a pilot that is stopped early has whole pairs."""
    baseline, ladder = plan.comparison.baseline, plan.comparison.ladder
    if not {baseline, plan.comparison.candidate} <= set(arms):
        return []
    jobs = [("ladder", baseline, budget) for budget in sorted(ladder, reverse=True)]
    jobs += [("compare", arm, 1.0) for arm in arms]
    return [
        _spec(
            plan,
            data,
            stage=stage,
            arm_name=arm,
            lr=best_lr(trials[arm]),
            seed=seed,
            steps=plan.steps(budget),
        )
        for seed in plan.comparison.seeds
        for stage, arm, budget in jobs
    ]


def _spec(
    plan: Plan, data: str, *, stage: str, arm_name: str, lr: float, seed: int, steps: int
) -> RunSpec:
    return RunSpec(
        stage=stage,
        arm_name=arm_name,
        arm=plan.arm[arm_name],
        lr=lr,
        seed=seed,
        steps=steps,
        task=plan.task,
        training=plan.training,
        data=data,
    )

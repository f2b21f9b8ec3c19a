"""What to run next: a pure function of the plan and of the runs that have finished.

Nothing else is remembered, so a pilot that was stopped goes on by asking again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from ..analysis.rate_fit import fit_rate
from ..plan import Arm, Plan, RunSpec
from ..plan.sizes import Size
from ..records import Run
from ..records.metric import cost
from ..records.trials import AROUND, Trials, best_lr, best_of_others, near
from .search import next_lr, next_outward, stencil


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
    """Cost by learning rate, for each arm, of the search's finished runs at one size."""
    size = size or plan.sizes()[0]
    trials: dict[str, dict[float, float | None]] = {arm: {} for arm in size.arms}
    for run in runs:
        spec = run.spec
        here = (spec.task, spec.training, spec.seed) == (size.task, size.training, plan.tuning.seed)
        if here and spec.purpose == "tune" and run.outcome and spec.arm_name in trials:
            trials[spec.arm_name][spec.lr] = cost(run, plan.decision)
    return dict(trials)


@dataclass(frozen=True, slots=True)
class _Tuning:
    """How far the tuning of one size is.

    Args:
        ready: runs that tuning needs next.
        going: arms that can be tuned.
        runs: tuning runs of each arm as far as they are known.
        rates: that the comparison uses, of the arms that have been tuned.
        trials: of each arm's search.
    """

    ready: tuple[RunSpec, ...]
    going: tuple[str, ...]
    runs: dict[str, int]
    rates: dict[str, float]
    trials: dict[str, Trials]

    @property
    def over(self) -> bool:
        """Whether every arm that can be tuned has been."""
        return all(arm in self.rates for arm in self.going)


def _tuning(
    plan: Plan, size: Size, data: str, runs: Iterable[Run], given_up: Collection[str]
) -> _Tuning:
    here = [r for r in runs if (r.spec.task, r.spec.training) == (size.task, size.training)]
    trials = tuning_trials(plan, here, size)
    begun = {
        r.spec.arm_name for r in here if r.spec.purpose != "tune"
    }  # no search of theirs goes on
    by_trials = sorted(size.arms, key=lambda arm: len(trials[arm]))
    following = {
        arm: None if arm in begun else _trial(plan, size, data, arm, trials[arm])
        for arm in by_trials
    }
    if not begun and not any(following.values()):
        following |= _outward(plan, size, data, trials)
    lost = {arm for arm, spec in following.items() if spec and spec.run_id in given_up}
    ready = [spec for arm, spec in following.items() if spec and arm not in lost]
    searched = [arm for arm in size.arms if arm not in lost and not following[arm]]
    done = {r.spec.run_id for r in here} | set(given_up)
    again = {arm: _repeats(plan, size, data, arm, trials[arm]) for arm in searched}
    open_ = {arm: [s for s in again[arm] if s.run_id not in done] for arm in searched}
    return _Tuning(
        ready=(*ready, *(s for specs in open_.values() for s in specs)),
        going=tuple(arm for arm in size.arms if arm not in lost),
        runs={arm: _expected(plan, trials[arm], arm not in searched) for arm in size.arms},
        rates={arm: _rate(plan, arm, here, trials[arm]) for arm in searched if not open_[arm]},
        trials=trials,
    )


def _expected(plan: Plan, trials: Trials, going_on: bool) -> int:
    """Tuning runs of one arm, at least."""
    search = max(plan.tuning.trials, len(trials) + 1) if going_on else len(trials)
    return min(search, plan.tuning.max_trials) + len(plan.tuning.more_seeds) * AROUND


def _rate(plan: Plan, arm: str, runs: Iterable[Run], trials: Trials) -> float:
    """The rate of an arm's comparison: as it began, else the lowest point of the fit."""
    compared = (r.spec for r in runs if r.spec.arm_name == arm)
    used = {s.lr for s in compared if s.purpose in ("compare", "ladder")}
    if used:
        return min(used)
    mine = [r for r in runs if r.spec.arm_name == arm and r.spec.purpose == "tune"]
    found = [(r.spec.lr, r.spec.seed, cost(r, plan.decision)) for r in mine]
    fit = fit_rate(found, plan.tuning.factor)
    return fit.best if fit else best_lr(trials)


def _repeats(plan: Plan, size: Size, data: str, arm: str, trials: Trials) -> list[RunSpec]:
    """The trials around an arm's lowest point, on the further tuning seeds."""
    if not plan.tuning.more_seeds or len(trials) < 2:
        return []
    around = stencil(plan.arm[arm].lr, plan.tuning.factor, trials)
    rates = [lr for lr in around if trials.get(lr) is not None]
    return [
        _spec(plan, size, data, purpose="tune", arm_name=arm, lr=lr, seed=seed)
        for seed in plan.tuning.more_seeds
        for lr in rates
    ]


def _size(
    plan: Plan, size: Size, data: str, runs: Iterable[Run], given_up: Collection[str]
) -> _Part:
    tuning = _tuning(plan, size, data, runs, given_up)
    specs = _comparison(plan, size, data, tuning) if tuning.over else tuning.ready
    seeds, jobs = len(plan.comparison.seeds), _budgets(plan, size, size.arms)
    tuning_runs = sum(tuning.runs.values())
    return _Part(
        specs=tuple(specs),
        planned_steps=tuning_runs * size.training.steps
        + seeds * sum(size.steps(budget) for *_, budget in jobs),
        planned_runs=tuning_runs + seeds * len(jobs),
    )


def _trial(plan: Plan, size: Size, data: str, arm: str, trials: Trials) -> RunSpec | None:
    """The arm's next run of the search; None when that is over."""
    if len(trials) >= plan.tuning.max_trials:
        return None
    lr = next_lr(plan.arm[arm].lr, plan.tuning.factor, trials, plan.tuning.trials)
    if lr is None:
        return None
    return _spec(plan, size, data, purpose="tune", arm_name=arm, lr=lr, seed=plan.tuning.seed)


def _outward(plan: Plan, size: Size, data: str, trials: Mapping[str, Trials]) -> dict[str, RunSpec]:
    """A run of the first arm that seems to have learned at no rate tried; empty if none does.

    One at a time, so that the order in which runs finish does not matter.
    """
    for arm in size.arms:
        if not 0 < len(trials[arm]) < plan.tuning.max_trials:
            continue
        default, factor = plan.arm[arm].lr, plan.tuning.factor
        lr = next_outward(default, factor, trials[arm], best_of_others(trials, arm))
        if lr is not None:
            seed = plan.tuning.seed
            return {arm: _spec(plan, size, data, purpose="tune", arm_name=arm, lr=lr, seed=seed)}
    return {}


def _budgets(plan: Plan, size: Size, arms: Iterable[str]) -> list[tuple[str, str, float]]:
    """(purpose, arm, budget) of the comparison's runs of one seed, in order."""
    ladder = sorted(plan.ladder, reverse=True)
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
            purpose=purpose,
            arm_name=arm,
            lr=tuning.rates[arm],
            seed=seed,
            budget=budget,
        )
        for seed in plan.comparison.seeds
        for purpose, arm, budget in _budgets(plan, size, tuning.going)
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
    tuned = {r.spec.run_id for r in runs if r.spec.purpose == "tune"}
    trials = tuning.trials
    specs = [
        _spec(
            plan,
            size,
            data,
            purpose="sensitivity",
            arm_name=name,
            lr=near(trials[name], factor * tuning.rates[name]),
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
    purpose: str,
    arm_name: str,
    lr: float,
    seed: int,
    budget: float = 1.0,
    arm: Arm | None = None,
) -> RunSpec:
    return RunSpec(
        purpose=purpose,
        arm_name=arm_name,
        arm=arm or plan.arm[arm_name],
        lr=lr,
        seed=seed,
        steps=size.steps(budget),
        task=size.task,
        training=size.training,
        data=data,
    )

"""The next runs: a pure function of the plan and of the runs that have finished.

Nothing else is remembered, so a pilot that was stopped goes on by asking again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..analysis.arm_results import arm_results
from ..analysis.compared import Comparison
from ..analysis.comparison import at_first, begun, comparison, others_due
from ..analysis.rungs import rungs_due
from ..analysis.verdict import decide, settles_more
from ..plan import Arm, Plan, RunSpec
from ..plan.sizes import Size
from ..records import Run
from ..records.metric import judged
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
        r.spec.run_id: judged(r, plan.decision)
        for r in done
        if r.outcome and r.spec.data == data and plan.covers(r.spec)
    }
    parts = [_size(plan, size, data, finished.values(), given_up) for size in plan.sizes()]
    if plan.sensitivity.gammas:
        parts.append(_sensitivity(plan, data, finished.values(), given_up))
    taken = finished.keys() | {s.run_id for s in running} | set(given_up)
    open_ = [s for part in parts for s in part.specs if s.run_id not in taken]
    trunks = {s.trunk for s in open_}  # from which a branch has still to start
    ready = tuple(
        s
        for s in open_
        if (not s.trunk or s.trunk in finished) and (not s.branches or s.run_id in trunks)
    )
    return Agenda(
        ready=ready,
        planned_steps=sum(part.planned_steps for part in parts),
        planned_runs=sum(part.planned_runs for part in parts),
        finished=not ready and not running,
    )


def _size(
    plan: Plan, size: Size, data: str, runs: Iterable[Run], given_up: Collection[str]
) -> _Part:
    if not others_due(plan, size, runs):
        part, decision = _of_arms(plan, at_first(plan, size), data, runs, given_up)
        if decision != "go":
            return part
    return _of_arms(plan, size, data, runs, given_up)[0]


def _of_arms(
    plan: Plan, size: Size, data: str, runs: Iterable[Run], given_up: Collection[str]
) -> tuple[_Part, str]:
    """Runs that the arms of a size need, and the decision so far; "" before there is one."""
    tuning = tuning_of(plan, size, data, runs, given_up)
    specs = tuning.ready
    due, decision = first_seeds(plan), ""
    at = comparison(plan, size, runs)
    rungs = rungs_due(at)
    if tuning.over:
        compared = _comparison(plan, size, data, tuning)
        compared = [s for s in compared if s.branches or s.steps in rungs]
        look = _look(at, compared, given_up)
        due, decision = look.seeds, look.decision
        specs = tuple(spec for spec in compared if spec.seed in due)
    jobs = [job for seed in due for job in jobs_of_a_seed(plan, size, size.arms, seed)]
    jobs = [job for job in jobs if job.branches or size.steps(job.budget) in rungs]
    trials = sum(tuning.runs.values())
    part = _Part(
        specs=specs,
        planned_steps=trials * size.training.steps + sum(job.work for job in jobs),
        planned_runs=trials + len(jobs),
    )
    return part, decision


def first_seeds(plan: Plan) -> tuple[int, ...]:
    """The seeds of the comparison that are run whatever comes out."""
    return plan.comparison.seeds if plan.decision.looks == "once" else begun(plan, ())


@dataclass(frozen=True, slots=True)
class _Look:
    """The comparison at the pairs so far.

    Args:
        seeds: that are run: those begun, and one more if it may change the decision.
        decision: on those begun; "" while their pairs are not whole, or if nothing depends on it.
    """

    seeds: tuple[int, ...]
    decision: str = ""


def _look(at: Comparison, specs: Sequence[RunSpec], given_up: Collection[str]) -> _Look:
    """Look at the pairs: those begun, of a plan that looks at every pair; else all."""
    plan = at.plan
    seeds, about = plan.comparison.seeds, plan.comparison.judged
    looks = plan.decision.looks == "every-pair"
    if not looks and plan.comparison.others == "always":
        return _Look(seeds)
    compared = (r for r in at.runs if r.spec.purpose in ("compare", "ladder"))
    due = begun(plan, {run.spec.seed for run in compared}) if looks else seeds
    done = {run.spec.run_id for run in at.runs} | set(given_up)
    pair = [s for s in specs if s.seed in due and s.arm_name in about]
    if not pair or not all(s.run_id in done or s.trunk in given_up for s in pair):
        return _Look(due)
    arms = arm_results(at, {})
    baseline, candidate = (arms[name] for name in about)
    verdict = decide(plan, baseline, candidate, 0)  # for what was given up no look waits,
    open_ = looks and len(due) < len(seeds) and candidate.seeds  # none if all were given up
    if open_ and settles_more(plan, baseline, candidate, verdict):
        due = seeds[: len(due) + 1]
    return _Look(due, "" if at.open else verdict.decision)  # but a go does


@dataclass(frozen=True, slots=True)
class Job:
    """One run of the comparison of a seed.

    Args:
        purpose: "trunk", "ladder" or "compare".
        arm: name in the plan.
        budget: in units of ``training.steps``; of a trunk, that of its longest branch.
        work: optimizer steps that it takes itself.
        branches: of a trunk, where branches start.
        branched: whether it is a branch.
    """

    purpose: str
    arm: str
    budget: float
    work: int
    branches: tuple[int, ...] = ()
    branched: bool = False


def jobs_of_a_seed(plan: Plan, size: Size, arms: Iterable[str], seed: int) -> list[Job]:
    """The comparison's runs of one seed, in order: trunks, ladders, and the common budget."""
    arms = tuple(arms)
    with_ladder = [arm for arm in arms if len(plan.budgets(arm, seed)) > 1]
    branched = set(with_ladder) if plan.training.trunk else set()
    found = []
    for arm in with_ladder:
        if arm in branched:
            points = size.branch_points(plan.rungs(arm))
            found.append(Job("trunk", arm, max(plan.rungs(arm)), points[-1], points))

    def job(purpose: str, arm: str, budget: float) -> Job:
        steps, own = size.steps(budget), arm in branched
        start = size.training.decay_start(steps) if own else 0
        return Job(purpose, arm, budget, steps - start, branched=own)

    ladder = sorted(plan.ladder, reverse=True)
    found += [job("ladder", arm, budget) for arm in with_ladder for budget in ladder]
    return found + [job("compare", arm, 1.0) for arm in arms]


def _comparison(plan: Plan, size: Size, data: str, tuning: Tuning) -> list[RunSpec]:
    """Seed by seed, so that a pilot that is stopped early has whole pairs."""
    if not {plan.comparison.baseline, plan.comparison.candidate} <= set(tuning.going):
        return []
    found = []
    for seed in plan.comparison.seeds:
        trunks: dict[str, str] = {}
        for job in jobs_of_a_seed(plan, size, tuning.going, seed):
            spec = _compared(plan, size, data, tuning, job, seed, trunks)
            if job.branches:
                trunks[job.arm] = spec.run_id
            found.append(spec)
    return found


def _compared(
    plan: Plan,
    size: Size,
    data: str,
    tuning: Tuning,
    job: Job,
    seed: int,
    trunks: Mapping[str, str],
) -> RunSpec:
    """One run of the comparison; ``trunks`` holds the ids of this seed's, by arm."""
    chosen = tuning.chosen[job.arm]
    return spec_of(
        plan,
        size,
        data,
        purpose=job.purpose,
        arm_name=job.arm,
        lr=plan.comparison.rate_at(chosen.lr, size.steps(job.budget) / size.steps(1.0)),
        seed=seed,
        steps=job.work if job.branches else size.steps(job.budget),
        arm=chosen.arm,
        branches=job.branches,
        trunk=trunks[job.arm] if job.branched else "",
    )


def _sensitivity(plan: Plan, data: str, runs: Iterable[Run], given_up: Collection[str]) -> _Part:
    """Equal factors of the tuned rate for the baseline and for every gamma of the candidate.

    Runs that tuning has made already are not made again.
    """
    size, lines = plan.sizes()[0], sensitivity_lines(plan)
    if not others_due(plan, size, runs):
        size = at_first(plan, size)
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

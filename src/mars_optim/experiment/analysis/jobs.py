"""Several pilots, one answer: which of them count, and what limits their comparison."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import UserError
from .analyse import analyse
from .arm_model import ArmResult, side
from .model import Analysis, Finding
from .profiles import Costs, Profile, comparable, counted


@dataclass(frozen=True, slots=True)
class Job:
    """A pilot and what it is called here."""

    name: str
    path: Path
    analysis: Analysis


@dataclass(frozen=True, slots=True)
class Jobs:
    """Contents of a page on several pilots.

    Args:
        jobs: those that are counted, in the order in which they were given.
        arms: one result of each name, for colours: as in the first job that has it.
        profiles: one of each arm that no job withheld, over the jobs that planned it; those over
            the most jobs first, and of these the best.
        left_out: pilots that are not counted, and why.
        notes: what limits the comparison of the jobs.
        confidence: of the intervals.
    """

    jobs: tuple[Job, ...]
    arms: tuple[ArmResult, ...]
    profiles: tuple[Profile, ...]
    left_out: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    confidence: float

    @property
    def unit_tokens(self) -> int:
        """Tokens of one run of the first job."""
        return self.jobs[0].analysis.unit_tokens

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arms: those with a profile, in its order, then the others."""
        every = (*(p.arm for p in self.profiles), *(arm.name for arm in self.arms))
        return tuple(dict.fromkeys(every))

    @property
    def top(self) -> float:
        """The highest finite tau as measured, from 1.05 to 4: where pictures end."""
        finite = [r for p in self.profiles for r in p.ratios if math.isfinite(r)]
        return min(4.0, max(1.05, 1.02 * max(finite, default=1.0)))


def jobs_of(folders: Sequence[Path]) -> Jobs:
    """Analyse several pilots together.

    Args:
        folders: two or more.

    Raises:
        UserError: if one is given twice or holds no pilot, or fewer than two can be counted.
    """
    given: dict[Path, Path] = {}
    for folder in folders:
        if (first := given.setdefault(folder.resolve(), folder)) is not folder:
            raise UserError(f"{folder} is the same folder as {first}: give each pilot once")
    found, left_out = [], []
    for name, folder in zip(names_of(folders), folders, strict=True):
        if not (folder / "plan.toml").exists():
            raise UserError(
                f"{folder} holds no pilot (no plan.toml): a report of several jobs takes "
                "pilots only; a folder of other runs has its own report"
            )
        try:
            analysis = analyse(folder)
            code, why = _not_counted(analysis)
            missing = analysis.totals.missing
        except UserError as error:
            code, why, missing = "jobs.left-out", str(error), 0
        if why:
            left_out.append(Finding(code, dict(job=name, why=why, missing=missing)))
        else:
            found.append(Job(name, folder, analysis))
    if len(found) < 2:
        reasons = "; ".join("{job}: {why}".format(**f.values) for f in left_out)
        raise UserError(
            f"{len(found)} of {len(folders)} pilots can be counted, and two are needed. {reasons}"
        )
    return together(tuple(found), tuple(left_out))


def together(jobs: tuple[Job, ...], left_out: tuple[Finding, ...] = ()) -> Jobs:
    """The profiles of these jobs' arms.

    An arm that some job withheld is taken out of all of them, as if no job had run it: the jobs
    that ran it are those whose verdict was go, no sample of the jobs, and an arm that is only there
    would lift the best of these jobs alone.
    """
    levels = {job.analysis.plan.decision.confidence for job in jobs}
    confidence = levels.pop() if len(levels) == 1 else 0.95
    apart = {name for job in jobs for name in withheld(job.analysis)}
    costs = {
        job.name: Costs.of(job.analysis.arms, seed).without(apart) for seed, job in enumerate(jobs)
    }
    fields = {
        job.name: [name for name in _run(job) if name not in apart]
        for job in jobs
        if comparable(arm for arm in job.analysis.arms if arm.name not in apart)
    }

    def profile(name: str) -> Profile:
        over = tuple(job for job, field in fields.items() if name in field)
        return Profile(name, tuple(costs[job].evidence(name) for job in over), confidence, over)

    profiles = [profile(name) for name in dict.fromkeys(n for f in fields.values() for n in f)]
    profiles.sort(key=lambda p: (-len(p.jobs), sum(min(r, 4.0) for r in p.ratios) / len(p.jobs)))
    return Jobs(jobs, _arms(jobs), tuple(profiles), left_out, tuple(_notes(jobs)), confidence)


def withheld(analysis: Analysis) -> tuple[str, ...]:
    """Arms that wait for a go and have no run (``comparison.others = "after-go"``)."""
    plan, run = analysis.plan, {arm.name for arm in analysis.arms}
    first = plan.comparison.at_first(plan.arms)
    return tuple(arm for arm in plan.arms if arm not in run and arm not in first)


def _run(job: Job) -> tuple[str, ...]:
    return tuple(arm.name for arm in job.analysis.arms)


def names_of(folders: Sequence[Path]) -> tuple[str, ...]:
    """The folders' own names; with the paths before them where two are alike."""
    short = [folder.resolve().name for folder in folders]
    return tuple(short) if len(set(short)) == len(short) else tuple(map(str, folders))


def _not_counted(analysis: Analysis) -> tuple[str, str]:
    """Why a pilot says nothing of its arms, as a code and in English; empty if it does."""
    if missing := analysis.totals.missing:
        runs = "1 of its runs is" if missing == 1 else f"{missing} of its runs are"
        why = f"{runs} missing; run the same `mars pilot` again to make them"
        return "jobs.left-out.missing", why
    if not analysis.verdict.trusted:
        return "jobs.left-out.untrusted", "its results are not evidence; its own report says why"
    if not comparable(analysis.arms):
        return "jobs.left-out.no-saving", "no arm has a saving over two or more seeds"
    return "", ""


def _arms(jobs: Iterable[Job]) -> tuple[ArmResult, ...]:
    """One result of each name; one baseline, candidate and control at the most, for colours."""
    found: dict[str, ArmResult] = {}
    for job in jobs:
        for arm in job.analysis.arms:
            taken = arm.role in {a.role for a in found.values()}
            found.setdefault(arm.name, replace(arm, role="other") if taken else arm)
    return tuple(found.values())


def _notes(jobs: Sequence[Job]) -> Iterable[Finding]:
    """Where the jobs differ in what a reader takes to be one."""
    plans = {job.name: job.analysis.plan for job in jobs}
    if len({p.comparison.baseline for p in plans.values()}) > 1:
        each = [f"{name}: {p.comparison.baseline}" for name, p in plans.items()]
        yield Finding("jobs.baselines", dict(each=", ".join(each)))
    rules = {name: p.decision for name, p in plans.items()}
    if len({repr(rule) for rule in rules.values()}) > 1:
        yield Finding("jobs.rules", dict(each=", ".join(_rules(rules))))
    for job in jobs:
        for arm in job.analysis.arms:
            if arm.role != "baseline" and not counted(arm):
                yield Finding(_why_never(arm), dict(arm=arm.name, job=job.name))
            elif arm.bounds:
                names = dict(arm=arm.name, baseline=job.analysis.baseline.name, job=job.name)
                yield Finding(_bound(arm), names)
        if not counted(job.analysis.baseline):
            yield Finding("jobs.diverged", dict(arm=job.analysis.baseline.name, job=job.name))
    yield from _not_run(jobs)
    yield from _other_settings(jobs)


def _rules(rules: Mapping[str, object]) -> list[str]:
    """Differences among the jobs' rules."""
    tables = {name: dataclasses.asdict(rule) for name, rule in rules.items()}  # type: ignore[call-overload]
    first = next(iter(tables.values()))
    keys = [k for k in first if len({repr(t.get(k)) for t in tables.values()}) > 1]
    return [
        f"{name}: {' and '.join(f'{k} = {table.get(k)}' for k in keys)}"
        for name, table in tables.items()
    ]


def _why_never(arm: ArmResult) -> str:
    if arm.diverged:
        return "jobs.diverged"
    if not arm.all_bounds:
        return "jobs.one-pair"
    return "jobs.above.target" if arm.target else "jobs.above"


def _bound(arm: ArmResult) -> str:
    """Code of what a saving's bound comes from: the ladder, or runs that missed the target."""
    return f"jobs.bound.{side(arm.bounds)}" + (".target" if arm.target else "")


def _not_run(jobs: Sequence[Job]) -> Iterable[Finding]:
    """Arms without runs in some job: held back there, or not planned."""
    every = [(*_run(job), *withheld(job.analysis)) for job in jobs]
    for name in dict.fromkeys(name for names in every for name in names):
        held = [job for job in jobs if name in withheld(job.analysis)]
        for code, due in (("jobs.withheld", False), ("jobs.not-yet", True)):
            where = [j.name for j in held if (j.analysis.verdict.decision == "go") == due]
            if where:
                yield Finding(code, dict(arm=name, jobs=", ".join(where)))
        without = [j.name for j, names in zip(jobs, every, strict=True) if name not in names]
        if without and not held:
            over = dict(n=len(jobs) - len(without), of=len(jobs))
            yield Finding("jobs.not-run", dict(arm=name, jobs=", ".join(without), **over))


def _other_settings(jobs: Sequence[Job]) -> Iterable[Finding]:
    """Arms of one name with other settings, beside the rate that tuning starts from."""
    first: dict[str, tuple[str, dict[str, object]]] = {}
    for job in jobs:
        for arm in job.analysis.arms:
            mine = dataclasses.asdict(arm.arm)
            where, theirs = first.setdefault(arm.name, (job.name, mine))
            keys = [k for k in mine if k != "lr" and mine[k] != theirs[k]]
            if keys:
                values = dict(arm=arm.name, first=where, job=job.name, keys=", ".join(keys))
                yield Finding("jobs.settings", values)

"""Performance profiles of the arms of several pilots.

The cost of an arm in a job is the tokens that it takes per token of the baseline for the same loss;
tau is that cost over the lowest of the job. An arm's profile is the share of jobs whose tau is at
most so much (Dolan and More; AlgoPerf's), of the jobs that planned it. Arms that diverged in a job
are never within any tau of its best.

The interval is over what each job's seeds and trials leave open; the jobs are taken as they are.
Seeds are few, so their bootstrap is parametric: with s the standard error of a mean over n seeds
and t of n - 1 degrees, a draw is mean + s t, the same seeds for all arms of the job. (The spread
of resampled seeds is too small by sqrt((n - 1) / n), and t's tails are lacking.)

Which arm is the best is not known either, and the lowest of several measured costs lies below the
lowest true one. So what is known of tau comes from multiple comparisons with the best (Hsu). With
d[b] the log cost of the arm less that of b, e[b] its noise and s[b] that noise's deviation:

    p of "tau <= t" = P(largest e[b] / s[b] >= largest (d[b] - log t) / s[b])
    p of "tau > t"  = largest over b of P(e[b] <= d[b] - log t)

That at least r of the jobs are beyond t, or within it, is tested by Fisher's combination of all but
the r - 1 least of these p (partial conjunction, Benjamini and Heller): the interval of a share.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arm_model import ArmResult
from .mean_ladder import SHARED
from .rate_fit import Floats

DRAWS = 4000
TAUS = (1.0, 1.01, 1.02, 1.05, 1.1, 1.25, 1.5, 2.0)
"""Factors of the tables; pictures have more."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Evidence about an arm's tau in one job.

    Args:
        tau: as measured.
        gaps: d[b], (others,); empty where all other arms lost (:func:`lost`).
        noise: e[b], (others, draws).
    """

    tau: float
    gaps: Floats
    noise: Floats

    @property
    def alone(self) -> bool:
        """Whether all other arms lost: tau is 1 beyond doubt, and nothing is left to test."""
        return not self.gaps.size

    @property
    def sd(self) -> Floats:
        """Standard deviation of the noise, (others,)."""
        return np.asarray(self.noise.std(axis=1).clip(1e-12), float)

    def p_within(self, tau: float) -> float:
        """p-value of "tau is at most this"."""
        sd = self.sd
        reach = ((self.gaps - math.log(tau)) / sd).max()
        return _share((self.noise / sd[:, None]).max(axis=0) >= reach)

    def p_beyond(self, tau: float) -> float:
        """p-value of "tau is more than this"."""
        room = self.gaps - math.log(tau) - 1e-9
        return max(_share(e <= d) for e, d in zip(self.noise, room, strict=True))

    def limits(self, confidence: float) -> tuple[float, float]:
        """Limits of tau's interval, in this job alone."""
        if self.alone:
            return 1.0, 1.0
        tail, sd = (1 - confidence) / 2, self.sd
        most = float(np.quantile((self.noise / sd[:, None]).max(axis=0), 1 - tail))
        low = float(np.max(self.gaps - most * sd))
        high = float(np.max(self.gaps + np.quantile(self.noise, 1 - tail, axis=1)))
        return math.exp(max(low, 0.0)), math.exp(max(high, 0.0))


def _share(hits: Any) -> float:
    """Share of draws, never 0."""
    return float((1 + np.count_nonzero(hits)) / (1 + len(hits)))


@dataclass(frozen=True, slots=True)
class Profile:
    """Share of the jobs in which an arm is within a factor of the job's best.

    Args:
        arm: its name.
        jobs: what is known in each job; None where it never gets there.
        confidence: of the intervals.
        over: names of these jobs (default: none, jobs without names).
    """

    arm: str
    jobs: tuple[Evidence | None, ...]
    confidence: float
    over: tuple[str, ...] = ()

    @property
    def ratios(self) -> tuple[float, ...]:
        """Tau of each job, as measured."""
        return tuple(job.tau if job else math.inf for job in self.jobs)

    def at(self, job: str) -> Evidence | None:
        """Result in the job of this name; None also where the profile is not over it."""
        return dict(zip(self.over, self.jobs, strict=True)).get(job)

    def share(self, tau: float) -> float:
        """As measured."""
        return sum(r <= tau * (1 + 1e-9) for r in self.ratios) / len(self.jobs)

    def ends(self, tau: float) -> tuple[float, float]:
        """Ends of the interval of the share."""
        known, tail = [job for job in self.jobs if job], (1 - self.confidence) / 2
        tested = [job for job in known if not job.alone]
        beyond = at_least([job.p_within(tau) for job in tested], tail)
        within = at_least([job.p_beyond(tau) for job in tested], tail)
        sure = len(known) - len(tested)
        return (sure + within) / len(self.jobs), (len(known) - beyond) / len(self.jobs)


def at_least(p_values: Sequence[float], level: float) -> int:
    """How many of these hypotheses are wrong, at the least, at this level."""
    from scipy.stats import chi2  # slow to import

    p, r = sorted(p_values), 0
    while r < len(p) and chi2.sf(-2 * np.log(p[r:]).sum(), 2 * len(p[r:])) <= level:
        r += 1
    return r


def counted(arm: ArmResult) -> bool:
    """Whether an arm has a cost: it was run, no run diverged, and some seed reached the ladder."""
    if arm.role == "baseline":
        return not arm.diverged
    known = arm.log_ratio is not None and arm.log_ratio.n > 1
    return known and not arm.diverged and not (arm.all_bounds and arm.bounds == {"at most"})


def lost(arm: ArmResult) -> bool:
    """Whether an arm never counts as near the best because of what its runs did.

    A run diverged, or two or more seeds ended and all of them above the ladder.
    """
    if arm.role == "baseline":
        return bool(arm.diverged)
    known = arm.log_ratio is not None and arm.log_ratio.n > 1
    return bool(arm.diverged) or (known and not counted(arm))


def comparable(arms: Iterable[ArmResult]) -> bool:
    """Whether these arms of a job compare: two or more won or lost, and some arm has a cost."""
    told = [counted(arm) for arm in arms if counted(arm) or lost(arm)]
    return len(told) > 1 and any(told)


@dataclass(frozen=True, slots=True)
class Costs:
    """Log cost of each counted arm of a job: as measured, and drawn; the baseline's is 0."""

    measured: Mapping[str, float]
    drawn: Mapping[str, Floats]

    @classmethod
    def of(cls, results: Sequence[ArmResult], seed: int) -> Costs:
        """Those of a pilot's arms, the baseline among them; ``seed`` of the draws."""
        rng = np.random.default_rng(seed)
        arms = [a for a in results if counted(a)]
        base = next(a for a in results if a.role == "baseline")
        others = [a for a in arms if a.log_ratio is not None and a.role != "baseline"]
        measured = {a.name: -a.log_ratio.mean for a in others if a.log_ratio}
        noise = seeds_noise([_by_seed(a) for a in others], rng)
        chosen_base, drawn = _chosen(base, rng), {}
        rungs = _rungs(rng) if any(arm.ladder_error for arm in others) else np.zeros((2, DRAWS))
        for i, arm in enumerate(others):
            added = np.zeros(DRAWS)
            if arm.slope is not None:
                theirs = base.slope or arm.slope
                added = chosen_base / theirs - _chosen(arm, rng) / arm.slope
            added += arm.ladder_error * rungs[int(measured[arm.name] > 0)]
            drawn[arm.name] = measured[arm.name] + noise[:, i] + added
        if base in arms:
            measured[base.name], drawn[base.name] = 0.0, np.zeros(DRAWS)
        return cls(measured, drawn)

    def without(self, names: Collection[str]) -> Costs:
        """The job as if these arms had not been run."""
        kept = [arm for arm in self.measured if arm not in names]
        return Costs({a: self.measured[a] for a in kept}, {a: self.drawn[a] for a in kept})

    def evidence(self, name: str) -> Evidence | None:
        """Evidence of one arm's tau; None for an arm that is not counted."""
        if name not in self.measured:
            return None
        others = [b for b in self.measured if b != name]
        gaps = np.array([self.measured[name] - self.measured[b] for b in others])
        drawn = [self.drawn[name] - self.drawn[b] for b in others]
        noise = np.array(drawn).reshape(len(others), DRAWS) - gaps[:, None]
        return Evidence(math.exp(gaps.max(initial=0.0)), gaps, noise)


def _rungs(rng: np.random.Generator) -> Floats:
    """Draws of the mean ladder's error above the common budget and below it, (2, draws).

    Arms that save are read off the rungs above, the others off those below. All arms of a side have
    one error; those of the two sides correlate, since one run is in both (:mod:`.mean_ladder`).
    """
    common, *own = rng.standard_normal((3, DRAWS))
    found: Floats = math.sqrt(SHARED) * common + math.sqrt(1.0 - SHARED) * np.array(own)
    return found


def seeds_noise(ratios: Sequence[Mapping[int, float]], rng: np.random.Generator) -> Floats:
    """Draws of what the seeds leave open of each arm's mean, (draws, arms).

    Arms share seeds, so they are drawn together, from the seeds that all of them have; where these
    are fewer than two, each by itself.

    Args:
        ratios: log token ratio by seed, of each arm.
        rng: of the draws.
    """
    if not ratios:
        return np.zeros((DRAWS, 0))
    shared = sorted(set.intersection(*map(set, ratios)))
    if len(shared) < 2:
        alone = [np.array([list(r.values())]) for r in ratios]
        return np.concatenate([_student(table, rng) for table in alone], axis=1)
    return _student(np.array([[r[s] for s in shared] for r in ratios]), rng)


def _student(table: Floats, rng: np.random.Generator) -> Floats:
    """Student's t draws (draws, arms) around 0 with the seeds' covariance; (arms, seeds) in."""
    n = table.shape[1]
    rest = (table - table.mean(axis=1, keepdims=True)) / math.sqrt(n * (n - 1))
    normal = rng.standard_normal((DRAWS, n)) @ rest.T
    scale = np.sqrt(rng.chisquare(n - 1, (DRAWS, 1)) / (n - 1))
    return np.asarray(normal / scale, float)


def _by_seed(arm: ArmResult) -> dict[int, float]:
    return {s.seed: s.log_ratio for s in arm.pairs if s.log_ratio is not None}


def _chosen(arm: ArmResult, rng: np.random.Generator) -> Floats:
    """Draws of what an arm's rate loses, less their mean, which the estimate has already."""
    if not arm.regret:
        return np.zeros(DRAWS)
    values = np.asarray(arm.regret)
    return np.asarray(rng.choice(values, DRAWS) - values.mean(), float)

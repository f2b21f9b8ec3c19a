"""The arms' results at one model size, from its runs."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..plan.arms import CONTROL
from ..plan.tuning import Point
from ..records import Outcome, Run
from ..records.metric import last_scores
from ..records.trials import at_edge, best_of_others, open_sides
from .arm_model import ArmResult, Curve, Role, SeedResult, TargetResult, Trial
from .best_of import Tuned, tuned
from .choice import (
    baseline_ladder,
    fit_of,
    mean_of_ladders,
    observations,
    regret_of,
    slope,
    with_choice,
)
from .compared import Comparison
from .ladder import both_ways, tokens_to_reach
from .looks import interval, level_of
from .mean_ladder import ladder_error
from .money import StepTime
from .stats import Interval
from .survival import ratio_interval
from .target import reach, slope_at, target_result, times_of
from .target import reading as to_target
from .trial_scores import losses_of, trial_runs
from .trials_pair import losses as losses_at_trials


def arm_results(at: Comparison, probe: Mapping[str, Any]) -> dict[str, ArmResult]:
    """Every arm of this size; ``probe`` holds step times, by arm.

    Differences and ratios to the baseline hold the choice of both learning rates.
    """
    found = {name: _arm(at, name, step_time(at, name, probe)) for name in at.size.arms}
    trials = {name: trials_of_one_seed(arm.trials) for name, arm in found.items()}
    for name, mine in trials.items():
        known = {n: trials[n] for n in at.plan.comparison.beside(name, trials)}
        if len(mine) > 1 and open_sides(mine, best_of_others(known, name)):
            found[name] = replace(found[name], at_edge=True)
    return with_choice(found, at.plan.comparison.baseline)


def _arm(at: Comparison, name: str, measured: StepTime | None) -> ArmResult:
    plan, unit, goal = at.plan, at.size.steps(1.0), at.plan.decision.goal
    metric = plan.decision.metric
    mine = {s: r for (arm, s, steps), r in at.compared.items() if (arm, steps) == (name, unit)}
    seeds = tuple(seed_result(at, mine[seed]) for seed in sorted(mine))
    tuning = [r for r in at.runs if r.spec.purpose == "tune" and r.spec.arm_name == name]
    used = next(iter(mine.values()), None)
    fall = None if goal is None else _slope_to(at, [*_baseline_runs(at), *mine.values()], tuning)
    by_design = _by_design(at, name, used, fall)
    trials = _trials(at, name, by_design)
    is_baseline = name == plan.comparison.baseline
    first = next((r.outcome for r in (*mine.values(), *tuning) if r.outcome), None)
    lr = next((r.spec.lr for r in mine.values()), None)
    losses = [s.loss for s in seeds if s.loss is not None]
    extra = _trials_pair(at, name)
    pairs = (*seeds, extra) if extra else seeds
    ratio = None if is_baseline else interval([s.log_ratio for s in pairs], plan.decision)
    target = None
    if goal is not None and mine:
        ratio, target = _to_target(at, seeds, is_baseline=is_baseline)
    differences = [s.difference for s in pairs]
    fit = None if by_design else fit_of(at, name)
    return ArmResult(
        name=name,
        role=role_of(name, plan.comparison.baseline, plan.comparison.candidate),
        arm=plan.arm[name],
        lr=lr,
        trials=tuple(sorted(trials, key=lambda t: (t.lr, t.seed))),
        at_edge=_at_end(by_design) if by_design else edge_of(trials),
        seeds=seeds,
        loss_difference=None if is_baseline else interval(differences, plan.decision),
        log_ratio=ratio,
        diverged=sum(_diverged(at, name, s) for s in seeds),
        step_time=(measured.ratio, measured.low, measured.high) if measured else None,
        bytes_per_parameter=bytes_per_parameter(first),
        curves=tuple(curve(mine[seed]) for seed in sorted(mine)),
        scores={k: v for k, v in mean_scores(mine.values()).items() if k != metric},
        regret=_luck(by_design, fall) if by_design else regret_of(fit, lr),
        best_range=fit.low_high(plan.decision.confidence) if fit else None,
        slope=slope(at, statistics.fmean(losses) if losses else None) if goal is None else fall,
        log_ratio_here=ratio,
        ladder_error=0.0 if is_baseline else _ladder_error(at, pairs),
        tuned=by_design,
        target=target,
        metric=metric,
        sign=plan.decision.sign,
        trials_pair=extra,
        compared=used.spec.arm if used else None,
    )


def _trials_pair(at: Comparison, name: str) -> SeedResult | None:
    """An arm on the tuning seed against the baseline, by the fits of the trials."""
    both = losses_at_trials(at, name)
    if both is None:
        return None
    base, loss = both
    reading, log_ratio = None, None
    if (mean := mean_of_ladders(at)) is not None:
        reading = tokens_to_reach(mean.of(base), loss)
        log_ratio = math.log(reading.tokens / mean.unit)
    return SeedResult(
        seed=at.plan.tuning.seed,
        loss=loss,
        difference=loss - base,
        reading=reading,
        log_ratio=log_ratio,
    )


def _diverged(at: Comparison, name: str, seed: SeedResult) -> bool:
    """Whether a run of a seed diverged; of the baseline, that of the common budget."""
    own = [] if name == at.plan.comparison.baseline else _rungs(at, name, seed.seed)
    return seed.loss is None or any(run and run.final_loss is None for run in own)


def _ladder_error(at: Comparison, seeds: Sequence[SeedResult]) -> float:
    """Error that the mean ladder adds to an arm's ratio; 0 where each seed has its own ladder."""
    mean = baseline_ladder(at)
    pairs = [
        (s.loss - s.difference, s.loss)
        for s in seeds
        if s.loss is not None and s.difference is not None
    ]
    if mean is None or not pairs:
        return 0.0
    differences = [loss - base for base, loss in pairs]
    sd = statistics.stdev(differences) if len(differences) > 1 else math.nan
    return ladder_error(mean, pairs, sd)


def _slope_to(at: Comparison, compared: Sequence[Run], tuning: Sequence[Run]) -> float | None:
    """Fall of the cost where runs reach the target: compared ones or, by design, trials."""
    goal = at.plan.decision.goal
    assert goal is not None
    found = slope_at(compared, goal)
    return slope_at(tuning, goal) if found is None and at.plan.tuning.by_design else found


def _by_design(at: Comparison, name: str, first: Run | None, fall: float | None) -> Tuned | None:
    """The tuning of an arm of which more than the rate is tuned.

    Args:
        at: the comparison.
        name: of the arm.
        first: of its compared runs.
        fall: of the cost where runs reach the target; None where none does.
    """
    tuning, arm, decision = at.plan.tuning, at.plan.arm[name], at.plan.decision
    if not tuning.by_design:
        return None
    used = Point(first.spec.arm, first.spec.lr) if first else None
    tried = trial_runs(at.runs, name, at.size.steps(1.0), tuning.seed)
    ends = {point: run.final_loss for point, run in tried.items()}
    if decision.goal is None:
        return tuned(tuning, name, arm, ends, used, ends)
    goal = decision.goal
    losses = losses_of(tried, decision, fall or 1.0)
    reached = {point: reach(run, goal).reached for point, run in tried.items()}
    return tuned(tuning, name, arm, losses, used, ends, reached)


def _luck(tuning: Tuned, fall: float | None) -> tuple[float, ...]:
    """Loss of the chosen trial against an average one, as a cost.

    Empty where that is not known: no trial reached the target.
    """
    if tuning.reached is None:
        return tuning.whole.off
    known = fall if any(tuning.reached) else None
    return tuple(known * off for off in tuning.whole.off) if known else ()


def _at_end(tuning: Tuned) -> bool:
    """Whether the chosen rate is the lowest or the highest of the trials."""
    rates = [values[tuning.over.index("lr")] for values, _ in tuning.trials]
    best = tuning.lowest
    return best is not None and len(set(rates)) > 1 and rates[best] in (min(rates), max(rates))


def _trials(at: Comparison, name: str, by_design: Tuned | None) -> list[Trial]:
    if by_design:
        rate, seed = by_design.over.index("lr"), at.plan.tuning.seed
        return [Trial(lr=values[rate], loss=loss, seed=seed) for values, loss in by_design.trials]
    found = observations(at, name, ("tune",))
    return [Trial(lr=lr, loss=loss, seed=seed) for lr, seed, loss in found]


def _to_target(
    at: Comparison, seeds: Sequence[SeedResult], *, is_baseline: bool
) -> tuple[Interval | None, TargetResult]:
    """An arm's times to the target, and their ratio to the baseline's by pairs."""
    goal = at.plan.decision.goal
    assert goal is not None
    base = {run.spec.seed: reach(run, goal) for run in _baseline_runs(at)}
    pairs = [(base[s.seed], s.reach) for s in seeds if s.reach and s.seed in base]
    pairs = [pair for pair in pairs if min(run.tokens for run in pair) > 0]
    ratio, kind = ratio_interval(times_of(pairs), level_of(at.plan.decision, len(pairs)))
    mine = target_result([s.reach for s in seeds if s.reach], "" if is_baseline else kind)
    return None if is_baseline else ratio, mine


def _baseline_runs(at: Comparison) -> list[Run]:
    """The baseline's compared runs of the common budget."""
    key = at.plan.comparison.baseline, at.size.steps(1.0)
    return [run for (arm, _, steps), run in at.compared.items() if (arm, steps) == key]


def trials_of_one_seed(trials: Sequence[Trial]) -> dict[float, float | None]:
    """Loss by learning rate, of the seed with the most trials."""
    if not trials:
        return {}
    seeds = Counter(t.seed for t in trials)
    most = min(seeds, key=lambda seed: (-seeds[seed], seed))
    return {t.lr: t.loss for t in trials if t.seed == most}


def edge_of(trials: Sequence[Trial]) -> bool:
    """Whether the best trial of the seed with the most trials is the lowest or highest tried."""
    return bool(trials) and at_edge(trials_of_one_seed(trials))


def bytes_per_parameter(outcome: Outcome | None) -> float | None:
    """Bytes of optimizer state per parameter; None where a job of the user's does not say."""
    if outcome is None or not (outcome.state_bytes and outcome.parameters):
        return None
    return outcome.state_bytes / outcome.parameters


def role_of(name: str, baseline: str, candidate: str) -> Role:
    """Role of an arm in the comparison."""
    if name == baseline:
        return "baseline"
    if name == candidate:
        return "candidate"
    return "control" if name == CONTROL else "other"


def seed_result(at: Comparison, run: Run, shift: float = 0.0) -> SeedResult:
    """One seed of an arm against the baseline of the same seed.

    Args:
        at: the comparison.
        run: of the arm, at the common budget.
        shift: added to its loss.
    """
    name, seed = run.spec.arm_name, run.spec.seed
    ladder = _rungs(at, at.plan.comparison.baseline, seed)
    loss, base = run.final_loss, ladder[0].final_loss if ladder[0] else None
    loss = None if loss is None else loss + shift
    finite = _finite(ladder)
    if at.plan.comparison.ladder_seeds:
        mean = baseline_ladder(at)
        finite = mean.of(base) if mean and base is not None else []
    reading = None
    if len(finite) >= 2:
        reading = tokens_to_reach(finite, math.inf if loss is None else loss)
    own = _rungs(at, name, seed)
    if len(own) > 1 and name != at.plan.comparison.baseline and None not in (loss, base):
        assert base is not None
        reading = both_ways(reading, base, _finite(own, shift), _tokens(run))
    goal, mine = at.plan.decision.goal, None
    if goal is not None:
        mine = reach(run, goal)
        reading = to_target(reach(ladder[0], goal), mine) if ladder[0] else None
    spent = mine.tokens if mine else _tokens(run)
    timed = reading is not None and min(reading.tokens, spent) > 0  # not there from the start
    return SeedResult(
        seed=seed,
        loss=loss,
        difference=None if loss is None or base is None else loss - base,
        reading=reading,
        log_ratio=math.log(reading.tokens / spent) if reading and timed else None,
        reach=mine,
    )


def _rungs(at: Comparison, arm: str, seed: int) -> list[Run | None]:
    """An arm's compared runs of a seed, that of the common budget first."""
    return [at.compared.get((arm, seed, at.size.steps(b))) for b in at.plan.rungs(arm)]


def _finite(ladder: Sequence[Run | None], shift: float = 0.0) -> list[tuple[int, float]]:
    """Tokens and losses of the rungs that did not diverge."""
    rungs = [(r.outcome.tokens, r.final_loss) for r in ladder if r and r.outcome]
    return [(tokens, loss + shift) for tokens, loss in rungs if loss is not None]


def _tokens(run: Run) -> float:
    """Tokens of the whole schedule, for a run that diverged too."""
    assert run.outcome is not None
    return run.outcome.tokens / run.outcome.steps * run.spec.steps


def curve(run: Run) -> Curve:
    """A run's losses over its tokens."""

    def points(key: str) -> tuple[tuple[int, float], ...]:
        return tuple((row["tokens"], row[key]) for row in run.rows if row.get(key) is not None)

    return Curve(seed=run.spec.seed, train=points("loss"), valid=points("valid_loss"))


def mean_scores(runs: Iterable[Run]) -> dict[str, float]:
    """The means of the last scores that all of the runs that did not diverge have."""
    scores = [last_scores(run) for run in runs if run.final_loss is not None]
    shared = [key for key in (scores[0] if scores else {}) if all(key in s for s in scores)]
    return {key: statistics.fmean(s[key] for s in scores) for key in shared}


def step_time(at: Comparison, name: str, probe: Mapping[str, Any]) -> StepTime | None:
    """As the probe measured it; without a probe, from the seconds of the paired runs.

    None where neither can tell.
    """
    if probe:
        row = probe.get(name)
        if not row or row["ratio"] is None:
            return None
        return StepTime(
            ratio=row["ratio"],
            low=row["ratio_low"],
            high=row["ratio_high"],
            rounds=row.get("rounds", 1),
        )
    baseline, unit = at.plan.comparison.baseline, at.size.steps(1.0)
    ratios = []
    for seed in at.plan.comparison.seeds:
        runs = [at.compared.get((arm, seed, unit)) for arm in (name, baseline)]
        speeds = [r.outcome.seconds / r.work for r in runs if r and r.outcome and r.work]
        if len(speeds) == 2 and min(speeds) > 0:
            ratios.append(speeds[0] / speeds[1])
    if len(ratios) < 2:
        return None
    low, middle, high = statistics.quantiles(ratios, n=4)
    return StepTime(ratio=middle, low=low, high=high, rounds=len(ratios))

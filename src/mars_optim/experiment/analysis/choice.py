"""Error from the choice of the learning rates, in the intervals of a comparison.

An arm is compared at a rate that was chosen by trials. Its loss there lies above its lowest by a
regret r >= 0 that is known as a distribution only (:mod:`.rate_fit`). The comparison is about the
lowest losses:

    difference* = difference - r[arm] + r[baseline]
    log ratio*  = log ratio + r[arm] / slope - r[baseline] / slope

with the slope of the baseline's loss over log tokens, from its ladder.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .ladder import fall_between
from .mean_ladder import MeanLadder, mean_ladder, normal_values
from .rate_fit import QUANTILES, Floats, Noise, Observation, RateFit, fit_rate, quantiles
from .stats import Interval, shifted

if TYPE_CHECKING:
    from .arm_model import ArmResult
    from .compared import Comparison


def noise_of(losses: Mapping[tuple[str, int], float | None]) -> Noise | None:
    """The noise of one run: what is left of the losses without their arms' and seeds' means.

    Args:
        losses: by arm and seed, at the common budget. Taken are the arms with the most losses, and
            the seeds that all of these have.

    Returns:
        None with fewer than two arms or two seeds.
    """
    seeds: dict[str, set[int]] = {}
    for (arm, seed), loss in losses.items():
        if loss is not None:
            seeds.setdefault(arm, set()).add(seed)
    if len(seeds) < 2:
        return None
    second = sorted(map(len, seeds.values()))[-2]
    arms = [arm for arm in sorted(seeds) if len(seeds[arm]) >= second]
    whole = sorted(set.intersection(*(seeds[arm] for arm in arms)))
    if len(whole) < 2:
        return None
    table = np.array([[losses[a, s] for s in whole] for a in arms], float)
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    degrees = (len(arms) - 1) * (len(whole) - 1)
    return Noise(float(np.sqrt((rest**2).sum() / degrees)), degrees)


def observations(
    at: Comparison, arm: str, purposes: Collection[str] = ("tune", "sensitivity")
) -> tuple[Observation, ...]:
    """An arm's trials at the common budget, of these purposes.

    Where trials of others have seeds of the comparison, the compared runs of these seeds are trials
    too: theirs is the rate in the middle.
    """
    settings, unit = at.plan.arm[arm], at.size.steps(1.0)
    mine = [r for r in at.runs if (r.spec.arm_name, r.spec.steps) == (arm, unit)]
    mine = [r for r in mine if r.spec.arm == settings]
    seeds = {r.spec.seed for r in mine if r.spec.purpose == "tune"}
    return tuple(
        (r.spec.lr, r.spec.seed, r.final_loss)
        for r in mine
        if r.spec.purpose in purposes or (r.spec.purpose == "compare" and r.spec.seed in seeds)
    )


def fit_of(at: Comparison, arm: str) -> RateFit | None:
    """The fit of an arm's trials, with the noise that the comparison tells."""
    unit = at.size.steps(1.0)
    arms = at.plan.comparison.beside(arm, at.size.arms)
    runs = {(a, s): r for (a, s, n), r in at.compared.items() if n == unit and a in arms}
    losses = {key: run.final_loss for key, run in runs.items()}
    tuning = at.plan.tuning
    return fit_rate(observations(at, arm), tuning.factor, noise_of(losses), tuning.seed)


def regret_of(fit: RateFit | None, lr: float | None) -> tuple[float, ...]:
    """Equally likely values of what a rate loses; empty where too few rates were tried to tell."""
    return tuple(fit.regret(lr).tolist()) if fit and lr else ()


def ladders_of(at: Comparison) -> dict[int, dict[int, float]]:
    """The baseline's compared losses that are known, by seed and tokens (of its middle seed)."""
    runs = _known(at)
    tokens = {n: _tokens_at(runs, n) for _, n in runs}
    found: dict[int, dict[int, float]] = {}
    for (seed, n), (_, loss) in runs.items():
        found.setdefault(seed, {})[tokens[n]] = loss
    return found


def baseline_ladder(at: Comparison) -> MeanLadder | None:
    """The mean of the baseline's ladders; None without a rung, and where each seed has its own."""
    return mean_of_ladders(at) if at.plan.comparison.ladder_seeds else None


def mean_of_ladders(at: Comparison) -> MeanLadder | None:
    """The mean of the baseline's ladders; None without a rung."""
    runs, unit = _known(at), at.size.steps(1.0)
    if all(n != unit for _, n in runs):
        return None
    return mean_ladder(list(ladders_of(at).values()), _tokens_at(runs, unit))


def _known(at: Comparison) -> dict[tuple[int, int], tuple[int, float]]:
    """Tokens and loss of the baseline's compared runs that did not diverge, by seed and steps."""
    return {
        (seed, steps): (run.outcome.tokens, run.final_loss)
        for (arm, seed, steps), run in at.compared.items()
        if arm == at.plan.comparison.baseline and run.outcome and run.final_loss is not None
    }


def _tokens_at(runs: Mapping[tuple[int, int], tuple[int, float]], steps: int) -> int:
    """Tokens of these steps; a job of the user's may count a few more with one seed."""
    return statistics.median_low(tokens for (_, n), (tokens, _) in runs.items() if n == steps)


def slope(at: Comparison, loss: float | None) -> float | None:
    """Fall of the baseline's loss per unit of log tokens, where it is ``loss``; > 0.

    From a parabola through the mean ladder, so that a rung's noise does not decide it; between two
    rungs, from the law by which these are read.

    Returns:
        None without a ladder that falls.
    """
    rungs: dict[float, list[float]] = {}
    for ladder in ladders_of(at).values():
        for tokens, value in ladder.items():
            rungs.setdefault(math.log(tokens), []).append(value)
    if mean := baseline_ladder(at):  # the seeds without rungs have another level
        level = float(np.mean(rungs[math.log(mean.unit)]))
        rungs = {math.log(t): [level + fall] * mean.seeds for t, fall in mean.fall.items()}
    if len(rungs) < 2:
        return None
    x = np.array(sorted(rungs))
    y = np.array([np.mean(rungs[key]) for key in x.tolist()])
    weight = np.sqrt([len(rungs[key]) for key in x.tolist()])
    chord = (y[0] - y[-1]) / (x[-1] - x[0])
    if chord <= 0:
        return None
    if len(x) == 2:
        return fall_between(x, y, float(np.mean(y)) if loss is None else loss)
    law = np.polyfit(x, y, min(2, len(x) - 1), w=weight)
    at_loss = _where(law, x, y, loss)
    return float(np.clip(-np.polyval(np.polyder(law), at_loss), 0.3 * chord, 3 * chord))


def _where(law: Floats, x: Floats, y: Floats, loss: float | None) -> float:
    """Log tokens at which the law is nearest to the loss, on the ladder."""
    fine = np.linspace(x[0], x[-1], 101)
    target = float(np.mean(y)) if loss is None else loss
    return float(fine[np.argmin(np.abs(np.polyval(law, fine) - target))])


def added(*terms: tuple[Sequence[float] | Floats, float | None]) -> Floats:
    """Equally likely values of the sum of ``factor * regret``; 0 for what is not known."""
    total = np.zeros(1)
    for values, factor in terms:
        if len(values) and factor:
            both = np.add.outer(total, factor * np.asarray(values)).ravel()
            total = quantiles(both, np.ones(both.size))
    return total


def in_loss(measured: Interval | None, arm: ArmResult, base: ArmResult) -> Interval | None:
    """The loss difference of two arms with the choice of both rates in it."""
    if measured is None:
        return None
    return shifted(measured, _of_both(arm, -1.0, base, 1.0))


def tokens_added(arm: ArmResult, base: ArmResult) -> tuple[float, ...]:
    """Equally likely values of what both rates, and the mean ladder's error, add to the log token
    ratio of two arms.
    """
    if arm.slope is None:
        return (0.0,)
    per_loss = 1.0 / arm.slope
    theirs = per_loss if base.slope is None else 1.0 / base.slope
    return tuple(on_ladder(_of_both(arm, per_loss, base, -theirs), arm).tolist())


def on_ladder(shifts: Floats, arm: ArmResult) -> Floats:
    """Equally likely shifts of an arm's log token ratio, with the mean ladder's error."""
    if not arm.ladder_error:
        return shifts
    return added((shifts, 1.0), (normal_values(QUANTILES), arm.ladder_error))


def _of_both(arm: ArmResult, factor: float, base: ArmResult, other: float) -> Floats:
    """The sum of two regrets, drawn together where both arms were tuned by one design."""
    if arm.tuned and base.tuned:
        return in_pairs(arm.regret, factor, base.regret, other)
    return added((arm.regret, factor), (base.regret, other))


def in_pairs(a: Sequence[float], factor: float, b: Sequence[float], other: float) -> Floats:
    """The sum of two lists of draws, draw by draw; 0 for one that is not known."""
    return factor * np.asarray(a or (0.0,)) + other * np.asarray(b or (0.0,))


def in_tokens(measured: Interval | None, arm: ArmResult, base: ArmResult) -> Interval | None:
    """The log token ratio of two arms with the choice of both rates in it."""
    return None if measured is None else shifted(measured, tokens_added(arm, base))


def with_choice(arms: Mapping[str, ArmResult], baseline: str) -> dict[str, ArmResult]:
    """The arms, with the choice of both rates in each difference and ratio to the baseline."""
    base = arms[baseline]
    return {
        name: replace(
            arm,
            loss_difference=in_loss(arm.loss_difference, arm, base),
            log_ratio=in_tokens(arm.log_ratio, arm, base),
        )
        for name, arm in arms.items()
    }


def untuned(arms: Iterable[ArmResult]) -> tuple[str, ...]:
    """Arms of whose rate nothing is known but that it was used."""
    return tuple(arm.name for arm in arms if not arm.regret)

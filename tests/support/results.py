"""Results of an arm, made up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from mars_optim.experiment.analysis import ArmResult, Interval, Verdict
from mars_optim.experiment.analysis.arm_model import SeedResult
from mars_optim.experiment.analysis.ladder import LadderReading
from mars_optim.experiment.analysis.stats import t_interval
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.decision import DecisionPlan
from mars_optim.experiment.report.messages import CODE, CODE_END, Messages

Bound = Literal["", "at least", "at most"]


def plan_with(*, min_saving: float = 0.05, confidence: float = 0.95) -> Plan:
    return Plan(decision=DecisionPlan(min_saving=min_saving, confidence=confidence))


def seed_result(seed: int, log_ratio: float | None, bound: Bound = "") -> SeedResult:
    reading = None if log_ratio is None else LadderReading(1000 * math.exp(log_ratio), bound)
    difference = -0.1 * (log_ratio or 0.0) + 0.001 * math.sin(seed + 1)  # as no two pairs are alike
    loss = 2.0 + 0.1 * math.sin(seed) + difference
    return SeedResult(
        seed=seed, loss=loss, difference=difference, reading=reading, log_ratio=log_ratio
    )


def candidate_with(
    log_ratios: Sequence[float],
    bounds: Sequence[Bound] = (),
    *,
    diverged: int = 0,
    at_edge: bool = False,
    confidence: float = 0.95,
) -> ArmResult:
    """The candidate, with one seed per log ratio; ``bounds`` of the first ones."""
    padded = [*bounds, *[""] * (len(log_ratios) - len(bounds))]
    seeds = [seed_result(i, r, b) for i, (r, b) in enumerate(zip(log_ratios, padded, strict=True))]
    for i in range(diverged):
        seeds[i] = replace(seeds[i], loss=None, difference=None)
    return ArmResult(
        name="mars-adamw",
        role="candidate",
        arm=Plan().arm["mars-adamw"],
        lr=1e-3,
        trials=(),
        at_edge=at_edge,
        seeds=tuple(seeds),
        loss_difference=None,
        log_ratio=t_interval(list(log_ratios), confidence) if log_ratios else None,
        diverged=diverged,
        step_time=None,
        bytes_per_parameter=None,
        curves=(),
    )


def baseline_with(*, at_edge: bool = False) -> ArmResult:
    """The baseline, as far as the rule looks at it."""
    made = candidate_with([], at_edge=at_edge)
    return replace(made, name="adamw", role="baseline")


def candidate_at(low: float, high: float, *, n: int = 5, bounds: Sequence[Bound] = ()) -> ArmResult:
    """The candidate with this interval of its log ratio."""
    mean = (low + high) / 2
    made = candidate_with([mean] * n, bounds)
    return replace(made, log_ratio=Interval(mean, low, high, n, (high - low) / 2))


def sentence_of(verdict: Verdict) -> str:
    """Sentence of the English report."""
    words = Messages()
    said = " ".join(words.finding(finding) for finding in verdict.findings)
    return f"{words(f'title.{verdict.decision}')}: {said}"


def reasons_of(verdict: Verdict) -> list[str]:
    """Reasons that the report gives, without marks around code."""
    said = [Messages().finding(reason) for reason in verdict.reasons]
    return [text.replace(CODE, "").replace(CODE_END, "") for text in said]

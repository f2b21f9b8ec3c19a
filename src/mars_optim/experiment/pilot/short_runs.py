"""Short runs before a pilot: how far runs differ by chance, seen from a twentieth of their length.

The difference of two arms in the loss, over the fall of the baseline's loss with log tokens, is a
log token ratio; its spread over a few seeds is the noise between pairs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..analysis.stats import sd_interval
from ..executors.runnable import Runnable
from ..plan import Plan, RunSpec
from ..records.metric import cost_of
from .pair_noise import Noise

SEEDS = (90001, 90002, 90003, 90004)  # far from those of a pilot
SHARE = 20  # a short run is this part of a whole one
LEAST_STEPS = 20


@dataclass(frozen=True, slots=True)
class Short:
    """Results of the short runs."""

    noise: Noise
    parameters: int
    tokens_per_step: int


def lengths_of(plan: Plan) -> tuple[tuple[str, int], ...]:
    """Arm and steps of the short runs of one seed."""
    steps = max(LEAST_STEPS, plan.training.steps // SHARE, 2 * plan.running.probe_steps)
    baseline, candidate = plan.comparison.baseline, plan.comparison.candidate
    return (baseline, steps // 2), (baseline, steps), (candidate, steps)


def seconds_of(probed: Mapping[str, Any], lengths: Sequence[tuple[str, int]]) -> float:
    """Time of runs of these lengths, by what was measured of a step, a start and an evaluation."""
    return sum(
        n * float(probed[arm]["seconds"]) + float(probed[arm]["outside"]) for arm, n in lengths
    )


def short_runs(plan: Plan, job: Runnable, progress: Callable[[int, int], None]) -> Short:
    """Pairs of short runs, and the baseline at half their length for the slope of its loss."""
    lengths = lengths_of(plan)
    done, total = 0, len(SEEDS) * sum(length for _, length in lengths)
    differences, drops = [], []
    for seed in SEEDS:
        losses = []
        for arm, length in lengths:

            def told(step: int, before: int = done) -> None:
                progress(before + step, total)

            outcome = job.run(spec_of(plan, job, arm, seed, length), told)
            done += length
            progress(done, total)
            losses.append(cost_of(outcome, plan.decision))
        half, whole, other = losses
        if half is None or whole is None or other is None:
            continue
        drops.append(half - whole)
        differences.append(whole - other)
    slope = statistics.fmean(drops) / math.log(2) if drops else 0.0
    sd = None
    if slope > 0 and len(differences) > 1:
        sd = statistics.stdev(differences) / slope
    low, high = sd_interval(sd, len(differences), 0.8) if sd else (0.0, math.inf)
    return Short(
        noise=Noise(sd=sd, low=low, high=high, pairs=len(differences), source="short runs"),
        parameters=outcome.parameters,
        tokens_per_step=round(outcome.tokens / max(1, outcome.steps)),
    )


def spec_of(plan: Plan, job: Runnable, arm: str, seed: int, steps: int) -> RunSpec:
    """A run that is no part of the pilot."""
    return RunSpec(
        purpose="probe",
        arm_name=arm,
        arm=plan.arm[arm],
        lr=plan.arm[arm].lr,
        seed=seed,
        steps=steps,
        task=plan.task,
        training=replace(plan.training, trunk=False),  # with a warm-up of its own length
        data=job.fingerprint,
    )

"""From the runs of a canary to what to do next. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal

from ...guard import Alarm, Baseline, Detector
from ..analysis import Interval
from ..analysis.stats import pairs_needed, t_interval
from ..records import Run
from .settings import CanarySettings

Recommendation = Literal["production", "back", "not-enough-runs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Continued:
    """One data order.

    Args:
        seed: the data order.
        adamw_loss: validation loss of AdamW continued; None if it diverged.
        mars_loss: of MARS continued.
        adamw_spike: the guard's first alarm in AdamW continued, None without one.
        mars_spike: in MARS continued.
        step_time: median time of a step, MARS over AdamW.
    """

    seed: int
    adamw_loss: float | None
    mars_loss: float | None
    adamw_spike: Alarm | None
    mars_spike: Alarm | None
    step_time: float

    @property
    def difference(self) -> float | None:
        """Loss of MARS less loss of AdamW, None if either diverged."""
        if self.mars_loss is None or self.adamw_loss is None:
            return None
        return self.mars_loss - self.adamw_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryResult:
    """Result of a canary.

    Args:
        recommendation: "production" (stage 3), "back" to AdamW, or "not-enough-runs".
        sentence: with its numbers.
        reasons: behind it.
        advice: learning rate and decay to start with.
        difference: paired, MARS less AdamW; None without a pair.
        seeds: each data order.
        scales: of the checkpoint's learning rate, by arm.
    """

    recommendation: Recommendation
    sentence: str
    reasons: tuple[str, ...]
    advice: tuple[str, ...]
    difference: Interval | None
    seeds: tuple[Continued, ...]
    scales: dict[str, float]


def continued(
    seed: int, history: Run, adamw: Run, mars: Run, settings: CanarySettings
) -> Continued:
    """One data order's numbers from its three runs."""
    baseline = Baseline(losses_of(history))
    return Continued(
        seed=seed,
        adamw_loss=adamw.final_loss,
        mars_loss=mars.final_loss,
        adamw_spike=first_alarm(losses_of(adamw), baseline, settings),
        mars_spike=first_alarm(losses_of(mars), baseline, settings),
        step_time=_step_seconds(mars) / _step_seconds(adamw),
    )


def losses_of(run: Run) -> tuple[float, ...]:
    """The loss of every step; records write what is not finite as null."""
    return tuple(math.nan if row["loss"] is None else row["loss"] for row in run.rows)


def first_alarm(
    losses: Sequence[float], baseline: Baseline, settings: CanarySettings
) -> Alarm | None:
    """The guard's first alarm of those that would go back."""
    detector = Detector(settings.guard, baseline)
    for step, loss in enumerate(losses, start=1):
        for alarm in detector.feed(step, loss):
            if alarm.signal in settings.guard.rollback_on:
                return alarm
    return None


def _step_seconds(run: Run) -> float:
    ends = [0.0, *(row["seconds"] for row in run.rows)]
    return median(b - a for a, b in pairwise(ends)) or math.nan


def judge(
    seeds: Sequence[Continued],
    settings: CanarySettings,
    scales: Mapping[str, float],
    advice: Sequence[str],
    edges: Sequence[str] = (),
) -> CanaryResult:
    """Back at a spike that AdamW has not, or if surely worse; on if surely better; else more seeds.

    As in the pilot, nothing is decided in favour of one arm while the other's best learning rate
    lies at the edge of those tried.

    Args:
        seeds: each data order.
        settings: with the rule.
        scales: of the learning rate, by arm.
        advice: on the learning rate.
        edges: arms ("adamw", "mars") whose best scale lies at the edge of several tried.
    """
    differences = [s.difference for s in seeds if s.difference is not None]
    interval = t_interval(differences, settings.confidence) if differences else None
    spiked = [s for s in seeds if s.mars_spike and not s.adamw_spike]
    both = [s.seed for s in seeds if s.mars_spike and s.adamw_spike]
    reasons = [_spike(s) for s in spiked]
    if both:
        reasons.append(
            f"AdamW continued spikes too at data orders {both}, so the cause is the data, not MARS."
        )
    if not spiked:
        reasons.append(
            f"No spike at the switch: the guard's signals stay off in all {len(seeds)} data orders."
            if not both
            else "No spike of MARS alone."
        )
    times = [s.step_time for s in seeds if math.isfinite(s.step_time)]
    if times:
        reasons.append(f"A step of MARS took {median(times):.2f} times AdamW's, on this machine.")
    recommendation, sentence = _decide(interval, bool(spiked), settings, len(seeds))
    untuned = {"production": "adamw", "back": "mars"}.get(recommendation)
    if untuned in edges and not spiked:
        recommendation = "not-enough-runs"
        sentence = f"Not enough trials: {sentence.split(': ', 1)[1]}"
        reasons.append(
            f"The best learning rate of {untuned} lies at the edge of those tried: it may do "
            "better than shown."
        )
    return CanaryResult(
        recommendation=recommendation,
        sentence=sentence,
        reasons=tuple(reasons),
        advice=tuple(advice),
        difference=interval,
        seeds=tuple(seeds),
        scales=dict(scales),
    )


def _spike(s: Continued) -> str:
    alarm = s.mars_spike
    assert alarm is not None
    return (
        f"Data order {s.seed}: {alarm.signal} at step {alarm.step} after the switch, loss "
        f"{alarm.value:.4g} against a limit of {alarm.limit:.4g}; AdamW continued has none."
    )


def _decide(
    interval: Interval | None, spiked: bool, settings: CanarySettings, n: int
) -> tuple[Recommendation, str]:
    margin = f"{settings.margin:g}"
    if spiked:
        return "back", "Back to AdamW: MARS spikes where AdamW continued does not."
    if interval is None or not math.isfinite(interval.low):
        return "not-enough-runs", "Not enough runs: fewer than two data orders have both arms."
    numbers = (
        f"final loss {interval.mean:+.4f} ({interval.low:+.4f} to {interval.high:+.4f}, "
        f"{100 * settings.confidence:g} % interval, {interval.n} data orders) against AdamW "
        "continued"
    )
    if interval.high < settings.margin:
        return "production", f"On to stage 3: {numbers}."
    if interval.low > settings.margin:
        return "back", f"Back to AdamW: {numbers}."
    needed = pairs_needed(interval.mean, interval.sd, settings.margin, settings.confidence)
    more = f" About {needed} data orders would decide it." if needed and needed > n else ""
    return "not-enough-runs", f"Not enough runs: {numbers}; {margin} lies inside.{more}"

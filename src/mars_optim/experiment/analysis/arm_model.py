"""Results of one arm and of its runs, as plain data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ..plan import Arm
from ..plan.decision import LOSS
from .ladder import LadderReading
from .stats import Interval

if TYPE_CHECKING:
    from .best_of import Tuned

Side = Literal["", "at-least", "at-most", "both"]
Role = Literal["baseline", "candidate", "control", "other"]


def side(bounds: Collection[str]) -> Side:
    """Code of a mean's bounds: on which sides of the truth it lies; "" without a bound."""
    if len(bounds) > 1:
        return "both"
    if "at least" in bounds:
        return "at-least"
    return "at-most" if bounds else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One tuning run."""

    lr: float
    loss: float | None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """When one run reached the target.

    Args:
        tokens: until then; of a run that missed it, its length.
        steps: likewise.
        seconds: likewise, of training; None where not known.
        reached: whether it did.
        at_first: whether its very first evaluation had it: it may have had it earlier.
        gap: between the two evaluations around it, as a share of the time; 0 if it missed.
    """

    tokens: float
    steps: float
    seconds: float | None
    reached: bool
    at_first: bool = False
    gap: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetResult:
    """The times to the target of one arm's runs.

    Args:
        runs: compared.
        reached: runs that reached it.
        kind: how the ratio to the baseline was told (:func:`.survival.kind_of`).
        tokens: when half of the runs have reached it (Kaplan and Meier); None if fewer do.
        steps: likewise.
        seconds: likewise.
        curve: (tokens, share of runs that have not reached it then).
        missed: lengths of the runs that did not.
    """

    runs: int
    reached: int
    kind: str
    tokens: float | None
    steps: float | None
    seconds: float | None
    curve: tuple[tuple[float, float], ...]
    missed: tuple[float, ...]

    @property
    def waits(self) -> bool:
        """Whether too few pairs are whole for more than a bound."""
        return self.kind not in ("pairs", "censored")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult:
    """One seed of one arm at the common budget, and what it is worth in the baseline's tokens.

    Args:
        seed: of the run.
        loss: final validation loss, or the metric that decides; None if the run diverged.
        difference: to the baseline's loss at the same seed; None if either diverged.
        reading: of the baseline's ladder at the same seed; None without a ladder.
        log_ratio: log of (tokens the baseline needs / tokens taken).
        reach: of the target, if there is one.
    """

    seed: int
    loss: float | None
    difference: float | None
    reading: LadderReading | None
    log_ratio: float | None
    reach: Reach | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One run's losses over its tokens."""

    seed: int
    train: tuple[tuple[int, float], ...]
    valid: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult:
    """All about one arm.

    Args:
        name: in the plan.
        role: what it is there for.
        arm: its settings in the plan.
        lr: tuned; None before tuning is over.
        trials: of the learning rate.
        at_edge: whether the best trial is the lowest or highest tried.
        seeds: one result per finished seed.
        loss_difference: to the baseline, paired; None for the baseline.
        log_ratio: log of the token ratio, paired; None for the baseline or without a ladder.
        diverged: number of comparison runs that diverged.
        step_time: ratio to the baseline, (median, lower quartile, upper quartile); None
            before it was measured.
        bytes_per_parameter: of optimizer state; None before a run has finished.
        curves: of the comparison runs.
        scores: what the last evaluations tell beside the loss, such as the accuracy: means over
            the seeds.
        regret: equally likely values of what its learning rate loses against its best one, in the
            loss; empty where fewer than two rates were tried.
        best_range: learning rates between which the best lies; None likewise.
        slope: fall of the baseline's loss per unit of log tokens; None without a ladder.
        log_ratio_here: ``log_ratio`` at these very rates and on this very ladder, without what
            their choice and the mean ladder's error add.
        ladder_error: standard deviation in log tokens that the mean ladder's error adds.
        tuned: its trials, where more than the rate is tuned; then ``regret`` is what its choice
            loses against that of an average tuning of as many trials.
        target: the times to the target, if there is one.
        metric: that decides, and stands where it says loss.
        sign: -1 if more of it is better.
        trials_pair: the tuning seed against the baseline, by the fits of the trials.
        compared: its settings in the compared runs, with those that were tuned; None before them.
    """

    name: str
    role: Role
    arm: Arm
    lr: float | None
    trials: tuple[Trial, ...]
    at_edge: bool
    seeds: tuple[SeedResult, ...]
    loss_difference: Interval | None
    log_ratio: Interval | None
    diverged: int
    step_time: tuple[float, float, float] | None
    bytes_per_parameter: float | None
    curves: tuple[Curve, ...]
    scores: Mapping[str, float] = field(default_factory=dict)
    regret: tuple[float, ...] = ()
    best_range: tuple[float, float] | None = None
    slope: float | None = None
    log_ratio_here: Interval | None = None
    ladder_error: float = 0.0
    tuned: Tuned | None = None
    target: TargetResult | None = None
    metric: str = LOSS
    sign: int = 1
    trials_pair: SeedResult | None = None
    compared: Arm | None = None

    @property
    def settings(self) -> Arm:
        """Its settings as they are compared: with those that were tuned."""
        return self.compared or self.arm

    @property
    def pairs(self) -> tuple[SeedResult, ...]:
        """The seeds, and the tuning seed where that is a pair, too."""
        return (*self.seeds, self.trials_pair) if self.trials_pair else self.seeds

    @property
    def mean_loss(self) -> float | None:
        """Mean final loss over the seeds that did not diverge."""
        losses = [s.loss for s in self.seeds if s.loss is not None]
        return sum(losses) / len(losses) if losses else None

    @property
    def bounds(self) -> set[str]:
        """On which sides of the truth ``log_ratio`` lies by readings outside the ladder.

        "at least", "at most". What is only known of times to a target is in the interval, if
        enough runs reached it.
        """
        if self.target is not None:
            return {self.target.kind} & {"at least", "at most"}
        return self.seed_bounds

    @property
    def seed_bounds(self) -> set[str]:
        """Which seeds' readings are bounds: "at least", "at most"."""
        return {s.reading.bound for s in self.pairs if s.reading and s.reading.bound}

    @property
    def all_bounds(self) -> bool:
        """Whether every reading is a bound: then their spread says nothing."""
        if self.target is not None and self.target.kind == "censored":
            return False
        readings = [s.reading for s in self.pairs if s.reading]
        return bool(readings) and all(reading.bound for reading in readings)

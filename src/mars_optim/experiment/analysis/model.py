"""Numbers that a report shows, as plain data; those of one arm are in :mod:`.arm_model`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..plan import Plan
from ..records.checks import ArmCheck
from .aftermath import Aftermath
from .arm_model import ArmResult
from .money import Money
from .stats import Interval

if TYPE_CHECKING:
    from .at_target import AtTarget
    from .noise import NoisePoint
    from .sensitivity import Line
    from .sizes import SizeResult, Trend

Decision = Literal["go", "no-go", "not-enough-runs"]


class Shown(Protocol):
    """Data for figures of several arms."""

    @property
    def arms(self) -> tuple[ArmResult, ...]:
        """In the order of the plan."""
        ...

    @property
    def unit_tokens(self) -> int:
        """Tokens of one run."""
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to be said, without its words: the report has them, in each language.

    Args:
        code: of a message in ``experiment/report/messages/en.toml``.
        values: the numbers and names that it speaks of; shares as fractions.
    """

    code: str
    values: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The decision by the plan's rule.

    Args:
        decision: "go", "no-go" or "not-enough-runs".
        findings: the decision's numbers, for a reader in a hurry: one sentence each.
        reasons: what stands behind it or limits it.
        pairs_needed: seeds that would settle it if the effect is what it looks like; None if it
            is settled or out of reach.
        trusted: whether the results are evidence at all; else no interval is shown.
    """

    decision: Decision
    findings: tuple[Finding, ...]
    reasons: tuple[Finding, ...]
    pairs_needed: int | None
    trusted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One step on the way from the baseline to the candidate.

    Args:
        cause: "settings" (the candidate's betas and decay), "correction" or "clip".
        before: arm without it.
        after: arm with it.
        log_ratio: of tokens, after over before, paired; the parts of a whole way sum to the
            candidate's effect where every seed is in all of them.
    """

    cause: str
    before: str
    after: str
    log_ratio: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """One arm against the baseline, or the candidate against another arm.

    Args:
        arm: that is judged.
        against: the arm it is paired with.
        log_ratio: of tokens, paired.
        bound: what the mean is if seeds lie beyond the ladder: "at least" or "at most", or
            "unknown" if on both sides.
        p: of no difference; two-sided t test; None where there is a bound, for bounds do not
            spread as what they stand for does.
        p_holm: adjusted over all contrasts; the verdict's own is not among them.
    """

    arm: str
    against: str
    log_ratio: Interval
    bound: str
    p: float | None
    p_holm: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningBudget:
    """Result when both arms have k trials.

    Args:
        trials: k.
        log_ratio: of tokens, with the noise of the choice; None where the losses of k trials are
            not known.
        bounds: of its readings: "at least", "at most".
        decision: by the plan's rule; None likewise.
    """

    trials: int
    log_ratio: Interval | None
    bounds: frozenset[str]
    decision: Decision | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Totals of the pilot."""

    runs: int
    diverged: int
    tokens: int
    seconds: float
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """Everything that a report shows."""

    plan: Plan
    arms: tuple[ArmResult, ...]
    verdict: Verdict
    ladder: tuple[tuple[int, int, float], ...]
    """(seed, tokens, loss) of the baseline's finished runs at every budget."""
    unit_tokens: int
    parameters: int
    totals: Totals
    control_share: float | None
    """The control's share of the candidate's effect, in log tokens; None without an effect."""
    against_control: Interval | None
    """Candidate's final loss minus the control's, paired."""
    environment: dict[str, Any]
    amendments: tuple[dict[str, Any], ...]
    money: Money | None
    """Hours and money on the real job; None before a saving and a step time are known."""
    sensitivity: tuple[Line, ...]
    """Loss over learning rate, one line for each arm and gamma that was run."""
    parts: tuple[Part, ...]
    """The candidate's effect cut into settings, correction and clip; empty without ablations."""
    contrasts: tuple[Contrast, ...]
    """The arms that the verdict is not about, with p-values by Holm's method."""
    sizes: tuple[SizeResult, ...]
    """The effect at each model size, the plan's own first; empty without other sizes."""
    trend: Trend | None
    """Whether the effect grows or shrinks with the parameters; None with one size."""
    noise: tuple[NoisePoint, ...]
    """The noise over the candidate's runs at the common budget; empty where not measured."""
    checks: Mapping[str, ArmCheck] = field(default_factory=dict)
    """Findings on the optimizers that arms name, by arm."""
    budgets: tuple[TuningBudget, ...] = ()
    """The verdict by the number of trials; empty where the rate alone is tuned."""
    candidate_ladder: tuple[tuple[int, int, float], ...] = ()
    """As ``ladder``, of the candidate; empty without trunks."""
    at_target: AtTarget | None = None
    """The forecast for the job that is paid for; None where the plan has none."""
    aftermath: Aftermath = field(default_factory=Aftermath)
    """Outcomes of the canary and of production, as far as they are known."""
    pair_seconds: float = 0.0
    """Training time of one more seed of all compared arms, with the ladder that it would have; 0 if
    not known."""
    run_seconds: float = 0.0
    """Training time of one run at the common budget, mean; 0 if not known."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds that a table shows: of a pilot that looks at every pair, up to the last that ran.

        Its plan has more pairs than it needs; those that it did without are not missing.
        """
        seeds = self.plan.comparison.seeds
        if self.plan.decision.looks == "once":
            return seeds
        run = {s.seed for arm in self.arms for s in arm.seeds}
        last = max((i for i, seed in enumerate(seeds) if seed in run), default=len(seeds))
        return seeds[: last + 1]

    @property
    def real_log_ratio(self) -> Interval | None:
        """The candidate's on the real job: forecast at the target, if it is; else as measured."""
        if self.at_target and self.at_target.log_ratio:
            return self.at_target.log_ratio
        return self.candidate.log_ratio

    @property
    def real_bounds(self) -> set[str]:
        """On which sides of the truth :attr:`real_log_ratio` lies; empty for a forecast.

        Hours and money are bounded on the same sides.
        """
        forecast = self.at_target is not None and self.at_target.log_ratio is not None
        return set() if forecast else self.candidate.bounds

    def arm(self, name: str) -> ArmResult:
        """The arm of this name."""
        return next(a for a in self.arms if a.name == name)

    @property
    def baseline(self) -> ArmResult:
        """The arm in use today."""
        return self.arm(self.plan.comparison.baseline)

    @property
    def candidate(self) -> ArmResult:
        """The arm that the verdict is about."""
        return self.arm(self.plan.comparison.candidate)

    @property
    def control(self) -> ArmResult | None:
        """NAdamW, where it is among the arms."""
        return next((a for a in self.arms if a.role == "control"), None)

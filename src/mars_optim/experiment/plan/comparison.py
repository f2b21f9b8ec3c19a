"""Who is compared with whom, on which seeds and budgets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from ...errors import UserError, did_you_mean
from .table import Count, Flag, Number, option, table

FIRST_LOOK = 3
"""Pairs at the first look: two would need a difference of more than 20 standard errors."""
LEAST_LADDERS = 1
"""Seeds with a ladder of their own, where not all have one."""

Budget = Annotated[Number, Field(gt=0.0, le=1000.0)]


@table
class ComparisonPlan:
    """Who is compared, at the tuned learning rates."""

    baseline: str = option("adamw", "the arm in use today")
    candidate: str = option("mars-adamw", "the arm that the verdict is about")
    seeds: tuple[Count, ...] = option((1, 2, 3, 4, 5), "one pair of runs each")
    ladder: tuple[Budget, ...] = option(
        (0.5, 0.75, 1.5), "further budgets of the baseline, in units of training.steps"
    )
    ladder_seeds: Count = option(
        0,
        "seeds, the first of them, that have the further budgets: tokens are read off the mean "
        "ladder of these; 0 for all, each read off its own",
    )
    rungs: Literal["always", "as-read"] = option(
        "always",
        'which of the further budgets are run: "always" all, or "as-read" those below 1 once an '
        "arm has ended above the baseline, those above 1 once one has ended below it",
    )
    trials_pair: Flag = option(
        False,
        "the tuning seed is a pair, too: its losses are those that the fits of the trials give at "
        "the tuned rates; only where the rate alone is tuned and no target is set",
    )
    lr_exponent: Number = option(
        0.0,
        "the baseline's rate on a rung is its tuned one times budget to this power; published fits "
        "over tokens: -0.32 to -0.40",
        ge=-2.0,
        le=2.0,
        sparse=True,
    )
    candidate_ladder: Flag = option(
        True,
        "with training.trunk the candidate has a ladder too, and tokens are read both ways",
        sparse=True,
    )
    others: Literal["always", "after-go"] = option(
        "always",
        'when the arms that the verdict is not about are run: "always", or only "after-go", when '
        "there is a saving to be attributed",
    )
    ablations: Flag = option(
        False, "add arms that tell what the candidate's effect is made of (betas, clip, correction)"
    )

    @property
    def judged(self) -> tuple[str, str]:
        """The arms that the verdict is about."""
        return self.baseline, self.candidate

    def at_first(self, arms: Iterable[str]) -> tuple[str, ...]:
        """Those of ``arms`` that are run whatever comes out, and that the verdict rests on."""
        return tuple(arm for arm in arms if self.others == "always" or arm in self.judged)

    def beside(self, arm: str, arms: Iterable[str]) -> tuple[str, ...]:
        """Those of ``arms`` whose runs tell something of an arm's: none that come after its own."""
        return self.at_first(arms) if arm in self.judged else tuple(arms)

    @property
    def with_rungs(self) -> tuple[int, ...]:
        """The seeds that have the further budgets."""
        return self.seeds[: self.ladder_seeds or None]

    def rate_at(self, lr: float, budget: float) -> float:
        """A rate that was tuned at the common budget, at another budget in its units."""
        return lr * budget**self.lr_exponent if self.lr_exponent else lr

    def rate_from(self, lr: float, budget: float) -> float:
        """The inverse of :meth:`rate_at`, but for rounding in the last digits."""
        return float(f"{lr / budget**self.lr_exponent:.12g}") if self.lr_exponent else lr


def check_comparison(comparison: ComparisonPlan, arms: Sequence[str]) -> None:
    """See that two different arms of the plan are compared.

    Args:
        comparison: of the plan.
        arms: of the same.

    Raises:
        UserError: naming the key.
    """
    for role in ("baseline", "candidate"):
        name = getattr(comparison, role)
        if name not in arms:
            hint = did_you_mean(name, arms)
            raise UserError(f"comparison.{role} = {name!r} is not among arms = {list(arms)}{hint}")
    if comparison.baseline == comparison.candidate:
        raise UserError("comparison.baseline and comparison.candidate are the same arm")


def check_seeds(comparison: ComparisonPlan, tuning: Sequence[int]) -> None:
    """See that there are pairs, and that no run that chose a rate judges it.

    Args:
        comparison: of the plan.
        tuning: seeds of its tuning, the first one first.

    Raises:
        UserError: naming the key.
    """
    if len(set(comparison.seeds)) < max(2, len(comparison.seeds)):
        raise UserError(
            f"comparison.seeds = {list(comparison.seeds)} must be two or more different seeds"
        )
    if len(set(tuning)) < len(tuning):
        raise UserError(
            f"tuning.more_seeds = {list(tuning[1:])} must differ from each other and from "
            f"tuning.seed = {tuning[0]}"
        )
    for key, seeds in (("seed", tuning[:1]), ("more_seeds", tuning[1:])):
        if both := set(seeds) & set(comparison.seeds):
            raise UserError(
                f"tuning.{key} = {min(both)} is among comparison.seeds: runs that chose the "
                "learning rate must not judge it; take another seed"
            )


def check_looks(comparison: ComparisonPlan, looks: str) -> None:
    """See that there are pairs enough for a look: two bound nothing.

    Raises:
        UserError: naming the key.
    """
    if looks == "every-pair" and len(comparison.seeds) < FIRST_LOOK:
        raise UserError(
            f"comparison.seeds = {list(comparison.seeds)} must be at least {FIRST_LOOK} seeds "
            f"with decision.looks = 'every-pair', whose first look comes after {FIRST_LOOK} "
            "pairs; or set decision.looks = 'once'"
        )


def check_ladder(comparison: ComparisonPlan) -> None:
    """See that tokens can be read off on both sides of the common budget.

    Raises:
        UserError: naming the key.
    """
    if min(comparison.ladder, default=1.0) >= 1.0 or max(comparison.ladder) <= 1.0:
        raise UserError(
            f"comparison.ladder = {list(comparison.ladder)} needs a budget below 1 and one "
            "above 1, so that tokens can be read off between them"
        )


def check_ladder_seeds(comparison: ComparisonPlan, *, trunk: bool) -> None:
    """See that the mean ladder has no more seeds than there are, and is the baseline's alone.

    Raises:
        UserError: naming the keys.
    """
    few, most = comparison.ladder_seeds, len(comparison.seeds)
    if few > most:
        raise UserError(
            f"comparison.ladder_seeds = {few} must be 0, for all seeds, or from {LEAST_LADDERS} to "
            f"{most}, the number of comparison.seeds"
        )
    clashes = [
        (few > 0, f"comparison.ladder_seeds = {few}", "comparison.ladder_seeds = 0"),
        (
            comparison.rungs == "as-read",
            "comparison.rungs = 'as-read'",
            "comparison.rungs = 'always'",
        ),
        (comparison.trials_pair, "comparison.trials_pair = true", "comparison.trials_pair = false"),
    ]
    found = [(now, back) for clash, now, back in clashes if clash]
    if trunk and found:
        keys, ways = (" and ".join(texts) for texts in zip(*found, strict=True))
        raise UserError(
            f"{keys} {'does' if len(found) == 1 else 'do'} not go with training.trunk, whose "
            f"ladders share runs within a seed; set {ways}, or training.trunk = false"
        )

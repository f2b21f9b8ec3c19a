"""Results that cannot be what they seem are named, and decide nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from mars_optim.experiment.analysis.arm_model import ArmResult, Curve, SeedResult
from mars_optim.experiment.analysis.model import Verdict
from mars_optim.experiment.analysis.stats import t_interval
from mars_optim.experiment.analysis.verdict import decide
from tests.support.results import baseline_with, candidate_with, plan_with, reasons_of, sentence_of

Losses = Sequence[float | None]


def arms(base: Losses, ours: Losses, curves: bool = False) -> tuple[ArmResult, ArmResult]:
    """The baseline and a candidate that saves a lot of tokens, with these losses."""

    def seeds(losses: Losses, ratio: float) -> tuple[SeedResult, ...]:
        return tuple(
            SeedResult(
                seed=i + 1,
                loss=loss,
                difference=None if loss is None or other is None else loss - other,
                reading=None,
                log_ratio=ratio + 0.01 * i,
            )
            for i, (loss, other) in enumerate(zip(losses, base, strict=True))
        )

    def curves_of(losses: Losses, at: float) -> tuple[Curve, ...]:
        rows = [((1, at + i), (2, float(loss or 9))) for i, loss in enumerate(losses)]
        return tuple(Curve(seed=i + 1, train=row, valid=()) for i, row in enumerate(rows))

    candidate = candidate_with([0.5, 0.51, 0.52])
    ratios = [0.5 + 0.01 * i for i in range(len(ours))]
    return (
        replace(
            baseline_with(),
            seeds=seeds(base, 0.0),
            diverged=sum(x is None for x in base),
            curves=curves_of(base, 3.0) if curves else (),
        ),
        replace(
            candidate,
            seeds=seeds(ours, 0.5),
            diverged=sum(x is None for x in ours),
            log_ratio=t_interval(ratios, 0.95),
            curves=curves_of(ours, 5.0) if curves else (),
        ),
    )


def judged(base: Losses, ours: Losses, curves: bool = False, missing: int = 0) -> Verdict:
    return decide(plan_with(), *arms(base, ours, curves), missing=missing)


BASE = (2.5012345678, 2.6123456789, 2.4234567891)
OURS = (2.4023456781, 2.5134567892, 2.3255678913)

REFUSED: dict[str, tuple[Losses, Losses, str]] = {
    "the seed is ignored": ((2.5,) * 3, (2.4,) * 3, "adamw has exactly the same loss with seeds 1"),
    "by the candidate": (BASE, (2.4,) * 3, "mars-adamw has exactly the same loss with seeds 1, 2"),
    "two seeds of three": (BASE, (OURS[0], OURS[0], OURS[2]), "the same loss with seeds 1, 2, so"),
    "the arm is ignored": (BASE, BASE, "adamw and mars-adamw have exactly the same loss (seeds 1,"),
    "in one pair": (BASE, (BASE[0], *OURS[1:]), "have exactly the same loss (seeds 1)"),
    "across seeds": (BASE, (BASE[1], *OURS[1:]), "have exactly the same loss (seeds 1, 2)"),
    "no spread": (BASE, [x - 0.1 for x in BASE], "by the same \u22120.1000 with seeds 1, 2, 3"),
    "but for single precision": (BASE, [x - 0.1 + 1e-7 * i for i, x in enumerate(BASE)], "same"),
    "the baseline diverged": ((None,) * 3, OURS, "adamw diverged in all of its 3 runs"),
    "all diverged": ((None,) * 3, (None,) * 3, "adamw and mars-adamw diverged in all of their"),
    "at the same seed": ((None, *BASE[1:]), (None, *OURS[1:]), "no evidence against mars-adamw"),
}


@pytest.mark.parametrize(("base", "ours", "words"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("missing", [0, 2])
def test_no_decision_rests_on_results_that_are_no_evidence(
    base: Losses, ours: Losses, words: str, missing: int
):
    verdict = judged(base, ours, missing=missing)
    assert verdict.decision == "not-enough-runs"
    assert words in sentence_of(verdict)
    assert bool(reasons_of(verdict)) == bool(missing)


def test_good_results_decide():
    assert judged(BASE, OURS).decision == "go"


@pytest.mark.parametrize("curves", [True, False])
def test_equal_rounded_losses_are_trusted_if_the_curves_differ(curves: bool):
    verdict = judged((2.50, 2.61, 2.42), (2.40, 2.40, 2.33), curves)
    assert verdict.decision == ("go" if curves else "not-enough-runs")


def test_losses_of_many_digits_are_not():
    assert judged(BASE, (OURS[0], OURS[0], OURS[2]), curves=True).decision == "not-enough-runs"


def test_candidate_diverged_where_baseline_did_not_is_a_no_go():
    assert judged((None, *BASE[1:]), (OURS[0], None, OURS[2])).decision == "no-go"


def test_a_pair_alone_is_too_few_and_nothing_worse():
    verdict = decide(plan_with(), baseline_with(), candidate_with([math.log(1.5)]), missing=0)
    assert "too few pairs" in sentence_of(verdict)

"""Go, no-go or not enough runs: the plan's rule, and what may not overturn it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.experiment.analysis import stats
from mars_optim.experiment.analysis.stats import pairs_needed, saved
from mars_optim.experiment.analysis.verdict import decide
from mars_optim.experiment.report.numbers import MINUS, percent
from tests.support.results import (
    Bound,
    baseline_with,
    candidate_at,
    candidate_with,
    plan_with,
    reasons_of,
    seed_result,
    sentence_of,
)

MIN_SAVING = -math.log1p(-0.05)  # 5 % of tokens saved, as a log ratio
GO, NO, MORE = "go", "no-go", "not-enough-runs"

TABLE: list[tuple[str, tuple[float, float], Sequence[Bound], str]] = [
    ("all of it above the worth", (0.10, 0.30), (), GO),
    ("all of it below the worth, though above zero", (0.01, 0.04), (), NO),
    ("all of it below zero", (-0.30, -0.10), (), NO),
    ("on both sides", (-0.10, 0.30), (), MORE),
    ("above zero, on both sides of the worth", (0.01, 0.10), (), MORE),
    ("just above", (MIN_SAVING + 1e-9, 0.2), (), GO),
    ("touching from above", (MIN_SAVING, 0.2), (), MORE),
    ("just below", (-0.2, MIN_SAVING - 1e-9), (), NO),
    ("touching from below", (-0.2, MIN_SAVING), (), MORE),
    ("above, and more was out of reach of the ladder", (0.10, 0.30), ("at least",), GO),
    ("above, but less was out of reach of the ladder", (0.10, 0.30), ("at most",), MORE),
    ("below, and less was out of reach of the ladder", (-0.3, -0.1), ("at most",), NO),
    ("below, but more was out of reach of the ladder", (-0.3, -0.1), ("at least",), MORE),
    ("above, out of reach both ways", (0.10, 0.30), ("at least", "at most"), MORE),
    ("below, out of reach both ways", (-0.3, -0.1), ("at least", "at most"), MORE),
    ("on both sides, out of reach", (-0.1, 0.3), ("at least",), MORE),
]


@pytest.mark.parametrize(
    ("ends", "bounds", "decision"), [t[1:] for t in TABLE], ids=[t[0] for t in TABLE]
)
def test_the_rule(ends: tuple[float, float], bounds: Sequence[Bound], decision: str):
    verdict = decide(plan_with(), baseline_with(), candidate_at(*ends, bounds=bounds), missing=0)
    assert verdict.decision == decision
    head = {GO: "Go: ", NO: "No-go: ", MORE: "Not enough runs to tell: "}[decision]
    assert sentence_of(verdict).startswith(head)
    assert sum("comparison.ladder" in reason for reason in reasons_of(verdict)) == len(set(bounds))


@pytest.mark.parametrize(
    ("min_saving", "decision"), [(0.0, GO), (0.1, GO), (0.3, MORE), (0.5, NO), (-0.5, GO)]
)
def test_the_plans_worth_moves_the_line(min_saving: float, decision: str):
    candidate = candidate_at(-math.log(0.8), -math.log(0.6))  # 20 to 40 % saved
    assert (
        decide(plan_with(min_saving=min_saving), baseline_with(), candidate, missing=0).decision
        == decision
    )


@pytest.mark.parametrize("missing", [0, 3])
def test_diverged_candidate_is_no_go_however_good_other_seeds(missing: int):
    candidate = candidate_with([0.5, 0.51, 0.52, 0.53], diverged=1)
    verdict = decide(plan_with(), baseline_with(), candidate, missing)
    assert verdict.decision == NO
    assert "mars-adamw diverged in 1 of 4 runs" in sentence_of(verdict)


def test_missing_runs_leave_it_open_however_clear_the_others():
    verdict = decide(plan_with(), baseline_with(), candidate_with([0.5, 0.51, 0.52]), missing=4)
    assert verdict.decision == MORE
    assert "still lacks 4 runs" in sentence_of(verdict)
    assert reasons_of(verdict) == [
        "Run the same command again: the pilot continues where it stopped."
    ]
    assert verdict.pairs_needed is None


@pytest.mark.parametrize("ratios", [[], [0.5]])
def test_fewer_than_two_pairs_leave_it_open(ratios: list[float]):
    verdict = decide(plan_with(), baseline_with(), candidate_with(ratios), missing=0)
    assert verdict.decision == MORE
    assert "too few pairs" in sentence_of(verdict)


def test_an_open_verdict_says_how_many_seeds_would_settle_it():
    ratios = [0.0, 0.2, 0.3, 0.1, 0.15]
    candidate = candidate_with(ratios)
    verdict = decide(plan_with(), baseline_with(), candidate, missing=0)
    assert candidate.log_ratio is not None
    needed = pairs_needed(candidate.log_ratio.mean, candidate.log_ratio.sd, MIN_SAVING, 0.95)
    assert verdict.decision == MORE
    assert verdict.pairs_needed == needed
    assert needed is not None
    assert needed > 5
    assert f"About {needed} seeds would settle it" in sentence_of(verdict)


@pytest.mark.parametrize(("ends", "bound"), [((0.1, 0.3), "at most"), ((-0.3, -0.1), "at least")])
def test_more_seeds_are_not_advised_where_only_a_rung_would_help(
    ends: tuple[float, float], bound: Bound
):
    candidate = candidate_with([*np.linspace(*ends, 5)], [bound])
    verdict = decide(plan_with(), baseline_with(), candidate, missing=0)
    assert verdict.decision == MORE
    assert verdict.pairs_needed is None
    assert "would settle it" not in sentence_of(verdict)
    assert any("comparison.ladder" in reason for reason in reasons_of(verdict))


@pytest.mark.parametrize(
    ("ratios", "baseline_edge", "candidate_edge", "decision"),
    [
        ([0.5, 0.51, 0.52], False, True, GO),  # tuned better, it would save even more
        ([0.5, 0.51, 0.52], True, False, MORE),
        ([-0.5, -0.51, -0.52], True, False, NO),
        ([-0.5, -0.51, -0.52], False, True, MORE),
    ],
)
def test_no_decision_rests_on_an_arm_whose_rate_may_be_bettered(
    ratios: list[float], baseline_edge: bool, candidate_edge: bool, decision: str
):
    baseline = baseline_with(at_edge=baseline_edge)
    candidate = candidate_with(ratios, at_edge=candidate_edge)
    verdict = decide(plan_with(), baseline, candidate, 0)
    assert verdict.decision == decision
    name = baseline.name if baseline_edge else candidate.name
    assert any(name in r and "edge" in r and "tuning.max_trials" in r for r in reasons_of(verdict))


SENTENCES: list[tuple[tuple[float, float], Sequence[Bound], tuple[str, ...]]] = [
    (
        (-math.log(0.8), -math.log(0.6)),
        (),
        ("takes 31 % fewer tokens than adamw", "95 % interval 20 % to 40 %, 5 paired seeds"),
    ),
    ((-math.log(0.8), -math.log(0.6)), ("at least",), ("takes at least 31 % fewer tokens",)),
    ((-0.4, -0.2), (), ("takes 35 % more tokens than adamw", f"interval {MINUS}49 % to {MINUS}22")),
    ((-0.4, -0.2), ("at most",), ("takes at least 35 % more tokens",)),
    ((-0.1, 0.1), (), ("takes 0.0 % fewer tokens", f"interval {MINUS}11 % to 9.5 %")),
]


@pytest.mark.parametrize(("ends", "bounds", "parts"), SENTENCES)
def test_the_sentence_tells_the_effect_with_its_interval(
    ends: tuple[float, float], bounds: Sequence[Bound], parts: tuple[str, ...]
):
    candidate = candidate_at(*ends, bounds=bounds)
    sentence = sentence_of(decide(plan_with(), baseline_with(), candidate, missing=0))
    for part in parts:
        assert part in sentence


@pytest.mark.parametrize(
    ("ends", "bounds", "wrong"),
    [
        ((-0.4, -0.2), ("at least",), "at least"),  # the saving is larger than shown
        ((0.1, 0.3), ("at least", "at most"), "at least"),  # it may be either
    ],
)
def test_sentence_claims_no_bound_that_the_readings_do_not_give(
    ends: tuple[float, float], bounds: Sequence[Bound], wrong: str
):
    candidate = candidate_at(*ends, bounds=bounds)
    assert wrong not in sentence_of(decide(plan_with(), baseline_with(), candidate, 0))


@pytest.fixture
def quick_quantiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of scipy's quantiles once: the search for pairs_needed asks for hundreds."""
    monkeypatch.setattr(stats, "t_quantile", functools.cache(stats.t_quantile))


def share_of(
    decision: str, draw: Any, *, repeats: int, min_saving: float, confidence: float
) -> float:
    plan, hits = plan_with(min_saving=min_saving, confidence=confidence), 0
    for _ in range(repeats):
        ratios, bounds = draw()
        candidate = candidate_with(ratios, bounds, confidence=confidence)
        hits += decide(plan, baseline_with(), candidate, missing=0).decision == decision
    return hits / repeats


@pytest.mark.slow
@pytest.mark.slow_but_one
@pytest.mark.usefixtures("quick_quantiles")
@pytest.mark.parametrize("decision", [GO, NO])
@pytest.mark.parametrize(("pairs", "confidence"), [(3, 0.95), (5, 0.95), (5, 0.8)])
def test_decision_at_the_threshold_is_as_rare_as_confidence_says(
    pairs: int, confidence: float, decision: str
):
    rng, repeats = np.random.default_rng(1), 4000

    def draw() -> tuple[list[float], list[Bound]]:
        return list(rng.normal(MIN_SAVING, 0.1, pairs)), []

    rate = share_of(decision, draw, repeats=repeats, min_saving=0.05, confidence=confidence)
    promised = (1 - confidence) / 2
    assert rate == pytest.approx(promised, abs=3.5 * math.sqrt(promised / repeats))


@given(st.floats(-3, 3))
def test_tokens_saved_are_one_minus_the_inverse_ratio(log_ratio: float):
    assert saved(log_ratio) == pytest.approx(1 - 1 / math.exp(log_ratio))


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0.0 %"),
        (0.05, "5.0 %"),
        (0.0994, "9.9 %"),
        (0.0996, "10 %"),
        (0.123, "12 %"),
        (1.0, "100 %"),
        (2.5, "250 %"),
        (-0.05, f"{MINUS}5.0 %"),
        (-0.5, f"{MINUS}50 %"),
        (-0.0004, "0.0 %"),
        (0.0004, "0.0 %"),
        (-0.0006, f"{MINUS}0.1 %"),
        (math.inf, "unknown"),
        (-math.inf, "unknown"),
        (math.nan, "unknown"),
    ],
)
def test_a_share_reads_as_text(share: float, text: str):
    assert percent(share) == text


@pytest.mark.parametrize(("diverged", "told"), [(True, "diverged"), (False, "one length only")])
def test_a_seed_that_is_not_read_is_told_by_its_cause(diverged: bool, told: str):
    seeds = [replace(seed_result(i, 0.0), loss=3.0 + 0.1 * i) for i in range(4)]
    if diverged:
        seeds[3] = replace(seeds[3], loss=None)
    made = candidate_with([0.5, 0.51, 0.52])
    candidate = replace(made, seeds=(*made.seeds, seed_result(3, None)))
    reasons = reasons_of(
        decide(plan_with(), replace(baseline_with(), seeds=tuple(seeds)), candidate, 0)
    )
    assert [reason for reason in reasons if "1 of its seeds" in reason and told in reason]
    assert sum("of its seeds" in reason for reason in reasons) == 1

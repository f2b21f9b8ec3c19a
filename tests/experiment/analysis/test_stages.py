"""The stages and their conditions follow from the pilot's verdict, with its numbers."""

from __future__ import annotations

import json
import string
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mars_optim.experiment.analysis import Analysis, ArmResult, next_step, rollout_steps
from mars_optim.experiment.analysis.conditions import Condition
from mars_optim.experiment.analysis.model import Totals
from mars_optim.experiment.analysis.verdict import decide
from mars_optim.experiment.plan import ARMS, Arm
from mars_optim.experiment.report.messages import LANGS, Messages, catalogue
from mars_optim.experiment.report.sections.rollout import condition_text
from mars_optim.guard.settings import GuardSettings
from tests.support.results import baseline_with, candidate_at, plan_with

CLEAR, LOSS, UNSURE = (0.10, 0.20), (-0.2, -0.1), (-0.1, 0.2)


def analysis_of(candidate: ArmResult, missing: int = 0, min_saving: float = 0.05) -> Analysis:
    plan, baseline = plan_with(min_saving=min_saving), baseline_with()
    return Analysis(
        plan=plan,
        arms=(baseline, candidate),
        verdict=decide(plan, baseline, candidate, missing),
        ladder=(),
        unit_tokens=1000,
        parameters=100,
        totals=Totals(runs=9, diverged=0, tokens=1, seconds=1.0, missing=missing),
        control_share=None,
        against_control=None,
        environment={},
        amendments=(),
        money=None,
        sensitivity=(),
        parts=(),
        contrasts=(),
        sizes=(),
        noise=(),
        trend=None,
    )


def text_of(condition: Condition) -> str:
    return condition_text(condition, Messages())


@pytest.mark.parametrize(
    ("ends", "missing", "following", "statuses"),
    [
        (CLEAR, 0, "canary", ["done", "next", "later"]),
        (UNSURE, 0, "pilot", ["next", "later", "later"]),
        (CLEAR, 2, "pilot", ["next", "later", "later"]),
        (LOSS, 0, None, ["done", "closed", "closed"]),
    ],
)
def test_the_next_stage_follows_from_the_verdict(
    ends: tuple[float, float], missing: int, following: str | None, statuses: list[str]
) -> None:
    analysis = analysis_of(candidate_at(*ends), missing)
    stage = next_step(analysis)
    assert (stage.key if stage else None) == following
    assert [s.status for s in rollout_steps(analysis)] == statuses
    assert [s.number for s in rollout_steps(analysis)] == [1, 2, 3]


def met(analysis: Analysis, number: int, key: str) -> bool | None:
    stage = rollout_steps(analysis)[number - 1]
    (found,) = [c for c in (*stage.entry, *stage.exit, *stage.rollback) if c.key == key]
    return found.met


def test_condition_is_ticked_exactly_where_the_pilot_met_it() -> None:
    good, bad = analysis_of(candidate_at(*CLEAR)), analysis_of(candidate_at(*UNSURE), missing=1)
    for key in ("runs-complete", "saving-sure"):
        assert met(good, 1, key) is True
        assert met(bad, 1, key) is False
    assert met(good, 2, "pilot-go") is True
    assert met(bad, 2, "pilot-go") is False
    assert met(good, 2, "no-spike") is None  # nobody knows yet
    edge = analysis_of(replace(candidate_at(*CLEAR), at_edge=True))
    assert met(edge, 1, "rates-at-edge") is False
    diverged = analysis_of(replace(candidate_at(*CLEAR), diverged=1))
    assert met(diverged, 1, "none-diverged") is False


def test_the_numbers_are_the_pilots_and_the_plans() -> None:
    candidate = replace(candidate_at(*CLEAR), step_time=(1.25, 1.2, 1.3), bytes_per_parameter=12.0)
    text = " ".join(
        text_of(c)
        for stage in rollout_steps(analysis_of(candidate, min_saving=0.03))
        for c in (*stage.entry, *stage.exit, *stage.rollback)
    )
    assert "lies above 3 %: measured 9.5 % to 18 %, 5 paired seeds" in text
    assert "at most 1.11 times adamw's" in text  # exp(0.10), the lower end
    assert "In the pilot: 1.25 times" in text
    assert "12.0 bytes per parameter" in text
    assert "at 86 % of adamw's tokens (82 % to 90 %)" in text


def test_the_guards_conditions_are_those_agreed_with_it() -> None:
    agreed = GuardSettings(loss_sigmas=5.0, patience=6, rollback_on=("loss",))
    production = rollout_steps(analysis_of(candidate_at(*CLEAR)), agreed)[2]
    assert {c.key for c in production.rollback} == {"guard-loss", "guard-warns", "guard-action"}
    assert "More than half of 6 losses" in text_of(production.rollback[0])
    assert "more than 5 deviations" in text_of(production.rollback[0])


def test_a_rule_without_adamws_moments_has_no_canary_to_go_to() -> None:
    lion = replace(candidate_at(*CLEAR), arm=ARMS["mars-lion"])
    assert met(analysis_of(lion), 2, "other-moments") is False


@pytest.mark.parametrize(
    ("kind", "arm", "command", "moments"),
    [
        ("gpt", ARMS["mars-adamw"], "mars canary CHECKPOINT", True),
        ("gpt", Arm(optimizer="torch-nadam"), "by hand", True),
        ("command", Arm(optimizer="external"), "by hand", None),
        ("imported", Arm(optimizer="external"), "by hand", None),
    ],
)
def test_no_command_is_named_that_refuses_this_pilot(
    kind: str, arm: Arm, command: str, moments: bool | None
) -> None:
    made = analysis_of(replace(candidate_at(*CLEAR), arm=arm))
    object.__setattr__(made.plan, "task", SimpleNamespace(kind=kind))
    assert rollout_steps(made)[1].command.startswith(command)
    assert met(made, 2, "same-moments") is moments


def test_before_there_are_pairs_the_checklist_says_so() -> None:
    none_yet = replace(candidate_at(*CLEAR), log_ratio=None, seeds=())
    analysis = analysis_of(none_yet, missing=10)
    assert met(analysis, 1, "saving-unknown") is False
    assert json.dumps([text_of(c) for s in rollout_steps(analysis) for c in s.exit])


def test_condition_texts_use_only_numbers_their_condition_has() -> None:
    seen = {}
    for candidate in (candidate_at(*CLEAR), replace(candidate_at(*LOSS), arm=ARMS["mars-lion"])):
        for stage in rollout_steps(analysis_of(candidate)):
            for c in (*stage.entry, *stage.exit, *stage.rollback):
                seen[c.key] = c
    for key, condition in seen.items():
        texts = "".join(catalogue(lang)[f"condition.{key}"] for lang in LANGS)
        fields = {name for _, name, _, _ in string.Formatter().parse(texts) if name}
        assert fields <= condition.numbers.keys()
        assert "{" not in text_of(condition)


def test_the_analysis_of_stages_reads_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a file was read")

    analysis = analysis_of(candidate_at(*CLEAR))
    monkeypatch.setattr(Path, "open", refuse)
    assert rollout_steps(analysis) == rollout_steps(analysis)

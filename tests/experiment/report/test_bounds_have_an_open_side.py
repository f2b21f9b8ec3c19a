"""A saving that is a bound: its other side stays open in text, hours, money and verdict.json."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mars_optim.cli import main
from mars_optim.experiment.analysis import ArmResult, Interval, rollout_steps
from mars_optim.experiment.analysis.action import action
from mars_optim.experiment.analysis.verdict import decide
from mars_optim.experiment.report.messages import LANGS, Messages
from mars_optim.experiment.report.savings import closed_part, ends, saving_interval
from mars_optim.experiment.report.sections.rollout import condition_text
from mars_optim.experiment.report.verdict_json import interval_data
from tests.experiment.analysis.test_stages import CLEAR, analysis_of
from tests.support.results import (
    Bound,
    baseline_with,
    candidate_at,
    candidate_with,
    plan_with,
    reasons_of,
    sentence_of,
)
from tests.support.written_pilot import write_pilot

PRICED = dict(cost__price_per_hour="2.5", cost__planned_hours="1000")
BOTH: tuple[Bound, Bound] = ("at least", "at most")


def verdict_of(folder: Path, speedup: float) -> tuple[dict[str, Any], dict[str, str]]:
    """verdict.json and, by language, report.md of a pilot at a price."""
    write_pilot(folder, speedup=speedup, **PRICED)
    for lang in LANGS:
        assert main(["report", str(folder), "--lang", lang]) == 0
    texts = {p.suffixes[0]: p.read_text(encoding="utf-8") for p in folder.glob("report*.md")}
    found = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
    return found, {"en": texts[".md"], "ja": texts[".ja"]}


@pytest.mark.parametrize(
    ("speedup", "bound", "open_end", "words"),
    [
        (8.0, "at least", "high", {"en": " or more)", "ja": " 以上\uff09"}),
        (0.1, "at most", "low", {"en": " or less)", "ja": " 以下\uff09"}),
    ],
)
def test_hours_and_money_are_open_where_the_tokens_are(
    tmp_path: Path, speedup: float, bound: str, open_end: str, words: dict[str, str]
) -> None:
    found, texts = verdict_of(tmp_path, speedup)
    arm = found["arms"]["mars-adamw"]
    for told in (found["tokens_saved"], found["hours_saved"], arm["tokens_saved"]):
        assert told["bound"] == bound
        assert told[open_end] is None
        assert told[{"low": "high", "high": "low"}[open_end]] is not None
    assert "bound" not in found["arms"]["mars-adamw"]["loss_difference"]
    sign = {"at least": "\u2265 ", "at most": "\u2264 "}[bound]
    for lang, ended in words.items():
        money = [line for line in texts[lang].splitlines() if "USD" in line and "%" not in line]
        saved = next(line for line in money if sign in line)
        assert ended in saved
    assert not any("tuning.more_seeds" in reason for reason in found["reasons"])


@pytest.mark.parametrize(
    ("at", "bounds", "said"),
    [
        ((0.1, 0.3), ["at least"], "interval 9.5 % or more"),
        ((0.1, 0.3), ["at most"], "interval 26 % or less"),
        ((-0.3, -0.1), ["at most"], "interval \u221211 % or less"),
        ((-0.3, -0.1), ["at least"], "interval \u221235 % or more"),
        ((0.1, 0.3), BOTH, "no interval is known"),
        ((-0.3, -0.1), BOTH, "no interval is known"),
    ],
)
def test_the_sentence_leaves_a_bounds_other_side_open(
    at: tuple[float, float], bounds: list[Bound], said: str
) -> None:
    verdict = decide(plan_with(), baseline_with(), candidate_at(*at, bounds=bounds), 0)
    assert said in sentence_of(verdict)
    assert " to \u2212" not in sentence_of(verdict)


def test_a_pilot_of_bounds_alone_asks_for_a_rung_alone() -> None:
    made = candidate_at(-0.1, 0.2, n=3, bounds=["at least"] * 3)
    assert made.log_ratio is not None
    wide = replace(made, log_ratio=replace(made.log_ratio, rates=1.0))
    verdict = decide(plan_with(), baseline_with(), wide, 0)
    assert verdict.pairs_needed is None
    assert not any("variance" in reason for reason in reasons_of(verdict))
    assert action(replace(analysis_of(wide), verdict=verdict)).code == "rung"


@pytest.mark.parametrize(
    ("bounds", "shown"),
    [
        (["at least"], "\u2265 18 % (9.5 % or more)"),
        (["at most"], "\u2264 18 % (26 % or less)"),
        (BOTH, "18 % (no interval: runs outside the ladder on both sides)"),
        ([], "18 % (9.5 % to 26 %)"),
    ],
)
def test_a_table_closes_no_open_side(bounds: list[Bound], shown: str) -> None:
    assert saving_interval(candidate_at(0.1, 0.3, bounds=bounds), Messages()) == shown


@pytest.mark.parametrize(
    ("bounds", "drawn"),
    [(["at least"], [9, 18]), (["at most"], [18, 26]), (BOTH, [18, 18]), ([], [9, 26])],
)
def test_a_picture_draws_an_interval_as_far_as_it_is_known(
    bounds: list[Bound], drawn: list[float]
) -> None:
    assert closed_part(Interval(0.18, 0.09, 0.26, n=3, sd=0.05), bounds) == pytest.approx(drawn)


def test_a_bound_on_both_sides_has_no_ends_for_programs() -> None:
    value = candidate_at(*CLEAR).log_ratio
    told = interval_data(value, BOTH)
    assert told is not None
    assert (told["low"], told["high"], told["bound"]) == (None, None, "unknown")
    assert ends(None, Messages(), BOTH) == Messages()("tile.not-known")


def conditions(arm: ArmResult, lang: str) -> dict[str, str]:
    say = Messages(lang)  # type: ignore[arg-type]
    steps = rollout_steps(analysis_of(arm))
    return {c.key: condition_text(c, say) for step in steps for c in step.exit}


@pytest.mark.parametrize("lang", LANGS)
def test_the_checklist_leaves_a_bounds_other_side_open(lang: str) -> None:
    more, less, both = (
        conditions(candidate_at(*CLEAR, bounds=bounds), lang)
        for bounds in (["at least"], ["at most"], BOTH)
    )
    unknown = Messages(lang)("unknown")  # type: ignore[arg-type]
    assert {"saving-sure.at-least", "planned-end.at-least", "step-time"} <= more.keys()
    assert {"saving-sure.at-most", "planned-end.at-most"} <= less.keys()
    assert "saving-sure.both" in both
    assert not {"step-time"} & (less.keys() | both.keys())
    numbers = [text for found in (more, less, both) for key, text in found.items() if "." in key]
    assert len(numbers) == 5
    assert not any(unknown in text for text in numbers)


def test_a_saving_that_is_at_most_so_much_is_not_sure() -> None:
    made = analysis_of(candidate_with([0.3] * 3, ["at most"] * 3))
    met = {c.key: c.met for c in rollout_steps(made)[0].exit}
    assert met["saving-sure.at-most"] is False


def test_an_interval_that_is_open_above_is_not_said_to_lie_below_zero() -> None:
    for bounds, said in (((), True), (("at least",), False), (("at most",), True)):
        candidate = candidate_at(-0.3, -0.1, bounds=list(bounds))
        made = decide(plan_with(), baseline_with(), candidate, 0)
        below = any("The whole interval lies below zero" in text for text in reasons_of(made))
        assert below == said

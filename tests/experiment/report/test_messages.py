"""The catalogue of messages: its languages agree, and what one lacks is said in English."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

import mars_optim
from mars_optim.experiment.analysis import Interval, analyse
from mars_optim.experiment.report import Messages, summary, write_report
from mars_optim.experiment.report.messages import CODE, CODE_END, catalogue
from tests.support.written_pilot import EXTRAS, write_pilot

SOURCES = Path(mars_optim.__file__).parent


def fields(text: str) -> set[tuple[str, str]]:
    return {(name, way or "") for _, name, way, _ in string.Formatter().parse(text) if name}


ENGLISH, JAPANESE = catalogue("en"), catalogue("ja")


def test_every_english_text_has_a_japanese_one_in_its_place() -> None:
    assert list(JAPANESE) == list(ENGLISH)


@pytest.mark.parametrize("code", JAPANESE)
def test_a_translated_text_has_the_values_of_the_english_one(code: str) -> None:
    texts = ENGLISH[code], JAPANESE[code]
    assert all(texts)
    english, japanese = ({f for f in fields(text) if f[1] != "s"} for text in texts)
    if code.startswith("jobs.left-out."):  # English takes the reason that Japanese spells out
        assert (english, japanese <= {("job", ""), ("missing", "")}) == (fields("{job}{why}"), True)
        return
    assert english == japanese
    assert texts[0].count("`") == texts[1].count("`")


def test_a_text_without_its_translation_is_said_in_english(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {"en": ENGLISH, "ja": {"diverged": "発散"}}
    monkeypatch.setattr("mars_optim.experiment.report.messages.catalogue", files.__getitem__)
    say = Messages("ja")
    assert (say("diverged"), say("tokens", n=2000)) == ("発散", "2 k tokens")


@pytest.mark.slow_but_one
@pytest.mark.parametrize("pilot", [{}, EXTRAS], ids=["default plan", "with extras"])
def test_a_japanese_report_lacks_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pilot: dict[str, str]
) -> None:
    said, original = set(), Messages.__call__

    def note(self: Messages, code: str, /, **values: object) -> str:
        said.add(code)
        return original(self, code, **values)

    write_pilot(tmp_path / "pilot", speedup=1.3, **pilot)
    analysis, say = analyse(tmp_path / "pilot"), Messages("ja")
    monkeypatch.setattr(Messages, "__call__", note)
    write_report(analysis, tmp_path / "pilot", say)
    summary(analysis, say)
    assert len(said) > 100
    assert said <= set(JAPANESE)


def test_every_named_message_exists_and_every_message_is_used() -> None:
    source = "\n".join(
        path.read_text(encoding="utf-8")
        for path in SOURCES.rglob("*")
        if path.suffix in (".py", ".j2")
    )
    made = tuple(re.findall(r'f"([a-z.-]+\.)\{', source))  # such as f"title.{decision}"
    made += ("figure.sweep.", "figure.design-sweep.", "figure.runs.sweep.")
    made += ("verdict.fewer.", "verdict.more.", "figure.sensitivity.")
    named = set(re.findall(r'"([a-z]+(?:[.-][a-z]+)*)"', source))
    assert [c for c in ENGLISH if c not in named and not c.startswith(made)] == []
    said = re.findall(r'Finding\(\s*"([^"]+)"|(?<!\.)\bsay\(\s*"([a-z.-]+)"', source)
    said = [finding or text for finding, text in said]
    assert len(said) > 50
    assert [c for c in said if c not in ENGLISH] == []


def test_japanese_texts_are_japanese() -> None:
    kana_or_kanji = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")
    plain = {"none", "environment.python", "between", "with-interval", "list-separator"}
    plain |= {"verdict.sentence", "amendment", "cost.memory-value", "figure.sweep.best", "state"}
    plain |= {"part.arms", "gamma", "range", "runs.source", "metric.unit", "terminal.loss"}
    plain |= {"action.cost", "colon", "jobs.tile.value", "jobs.ends", "at-target.refusal"}
    assert {c for c, text in JAPANESE.items() if not kana_or_kanji.search(text)} <= plain
    assert not any(kana_or_kanji.search(text) for text in ENGLISH.values())
    half = [c for c, t in JAPANESE.items() if re.search(r"[(),;]", re.sub("{.*?}|`.*?`", "", t))]
    assert half == []  # full-width punctuation


def test_no_value_can_pass_for_code() -> None:
    words = Messages()
    text = words("amendment", date=f"{CODE}x{CODE_END}", changes="`y`")
    assert text == "x: `y`"
    assert words("tile.no-price").count(CODE) == 1


@pytest.mark.parametrize(
    ("lang", "said"),
    [
        ("en", ["12 %", "5 %", "\u22120.0100", "7.2 min", "1.0 % to 3.0 %"]),
        ("ja", ["12%", "5%", "\u22120.0100", "7.2 分", "1.0%〜3.0%"]),
    ],
)
def test_numbers_are_written_as_the_language_does(lang: str, said: list[str]) -> None:
    words = Messages(lang)  # type: ignore[arg-type]
    interval = words.between(Interval(0.02, 0.01, 0.03, 5, 0.01), words.percent)
    numbers = [words.percent(0.123), words.level(0.05), words.signed(-0.01), words.duration(432)]
    assert [*numbers, interval] == said


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    "pilot", [dict(speedup=1.3), dict(speedup=0.8), dict(speedup=1.06, spread=0.2)]
)
def test_the_japanese_report_says_everything_in_japanese(
    tmp_path: Path, pilot: dict[str, float]
) -> None:
    out = tmp_path / "pilot"
    write_pilot(out, **pilot, cost__price_per_hour="2.5", cost__currency="'円'")
    analysis, words = analyse(out), Messages("ja")
    html, markdown, verdict = write_report(analysis, out, words)
    assert (html.name, markdown.name, verdict.name) == (
        "report.ja.html",
        "report.ja.md",
        "verdict.json",
    )
    page = re.sub(r"</?button\b[^>]*>", "", html.read_text(encoding="utf-8"))
    assert '<html lang="ja">' in page
    sentence = words.sentence(analysis)
    assert words.lead(analysis) in page
    assert sentence in markdown.read_text(encoding="utf-8")
    assert sentence in summary(analysis, words)
    assert "(figures/saving.ja.svg)" in markdown.read_text(encoding="utf-8")
    visible = re.sub(
        r"<style.*?</style>|<pre.*?</pre>|<code>.*?</code>|<[^>]+>", " ", page, flags=re.S
    )
    known = (
        "adamw|nadamw|mars|control|AdamW|MARS|Holm|gamma|GPT|Nesterov|Python|torch|Student|"
        "Linux|cpu|optim|nat"
    )
    english = re.findall(rf"\b(?!(?:{known})\b)[A-Za-z]{{4,}}\b", visible)
    assert set(english) <= {"mars", "adamw"}
    assert '"sentence": "' in verdict.read_text(encoding="utf-8")
    assert "トークン" not in verdict.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_command_line_reports_in_japanese(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mars_optim.cli import main

    out = tmp_path / "pilot"
    write_pilot(out, speedup=1.3)
    assert main(["report", str(out), "--lang", "ja"]) == 0
    printed = capsys.readouterr().out
    assert "採用" in printed
    assert Messages("ja")("terminal.report", path=out / "report.ja.html") in printed
    assert not (out / "report.html").exists()


def test_unknown_languages_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from mars_optim.cli import main

    for command in ("pilot", "report"):
        assert main([command, "--lang", "fr"]) == 2
        error = capsys.readouterr().err
        assert "fr" in error
        assert "ja" in error

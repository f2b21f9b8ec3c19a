"""The report's texts in one language: ``en.toml``, and the like, beside this file."""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

from ...analysis import Analysis, Finding, Interval, went_back
from ...plan.decision import LOSS, DecisionPlan
from .. import numbers

Lang = Literal["en", "ja"]
LANGS: tuple[Lang, ...] = get_args(Lang)
CODE, CODE_END = "\ue000", "\ue001"
"""Around what is code. No value can hold them, so no value can pass for code or end it."""


@cache
def catalogue(lang: Lang) -> Mapping[str, str]:
    """Code -> text, of one language's file; not every text need be in every language."""
    return tomllib.loads((files(__package__) / f"{lang}.toml").read_text(encoding="utf-8"))


def ticks(text: str) -> str:
    """With backticks around what is code, as in the catalogue."""
    return text.replace(CODE, "`").replace(CODE_END, "`")


class Messages:
    """Says things in one language; in English what that language has no text for.

    A text may hold ``{name}`` and ``{name:how}`` with one of the ways below, and code between
    backticks, which is marked by :data:`CODE` in what is returned.

    Args:
        lang: "en" or "ja".
    """

    def __init__(self, lang: Lang = "en") -> None:
        self.lang = lang
        self.suffix = "" if lang == "en" else f".{lang}"
        self._texts = {**catalogue("en"), **catalogue(lang)}
        self._formatter = _Formatter(self)
        self._words: dict[str, Any] = {}
        self._words = self._of(DecisionPlan())

    def about(self, decision: DecisionPlan) -> Messages:
        """The same, where another metric than the loss may decide."""
        made = Messages(self.lang)
        made._words = made._of(decision)
        return made

    def _of(self, decision: DecisionPlan) -> dict[str, Any]:
        """How the texts name what decides."""
        loss = decision.metric == LOSS
        metric = self("metric.loss") if loss else decision.metric
        words: dict[str, Any] = {"metric": metric, "target": decision.target}
        goal = self("goal.same" if decision.target is None else "goal.target", **words)
        valid = self("metric.valid") if loss else metric
        return words | {"goal": goal, "valid": valid, "unit": self("metric.unit") if loss else ""}

    def __call__(self, code: str, /, **values: Any) -> str:
        """The text of a code, filled with values."""
        text = re.sub("`([^`]*)`", rf"{CODE}\1{CODE_END}", self._texts[code])
        return self._formatter.format(text, **{**self._words, **values})

    def each(self, *codes: str) -> tuple[str, ...]:
        """Texts without values."""
        return tuple(map(self, codes))

    def prose(self, *sentences: str) -> str:
        """Sentences in a row."""
        return ("" if self.lang == "ja" else " ").join(sentences)

    def listed(self, items: Iterable[str]) -> str:
        """Names or numbers in a row."""
        return self("list-separator").join(items)

    def finding(self, finding: Finding) -> str:
        """Text of a finding of the analysis."""
        return self(finding.code, **finding.values)

    def sentence(self, analysis: Analysis) -> str:
        """The verdict in a sentence or two."""
        return self("verdict.sentence", title=self.title(analysis), lead=self.lead(analysis))

    def title(self, analysis: Analysis) -> str:
        """The pilot's verdict in a word or two, and the stage that has gone back since."""
        decision = analysis.verdict.decision
        back = went_back(analysis.aftermath) if decision == "go" else ""
        return self(f"title.go.back-{back}" if back else f"title.{decision}")

    def lead(self, analysis: Analysis) -> str:
        """The numbers that the verdict rests on."""
        return self.prose(*(self.finding(f) for f in analysis.verdict.findings))

    def percent(self, share: float) -> str:
        """A share."""
        text = numbers.percent(share)
        if text == "unknown":
            return self("unknown")
        return text if self.lang == "en" else text.replace(" %", "%")

    def level(self, share: float) -> str:
        """A share that was chosen, without rounding."""
        return f"{100 * share:g}{' %' if self.lang == 'en' else '%'}"

    def signed(self, value: float) -> str:
        """A number with its sign."""
        text = numbers.signed(value)
        return self("unknown") if text == "unknown" else text

    def duration(self, seconds: float) -> str:
        """A time, in the unit that suits it."""
        value, unit = numbers.duration(seconds)
        return self(unit, value=value)

    def between(self, value: Interval, show: Callable[[float], str]) -> str:
        """From the lower to the upper end of an interval."""
        return self("between", low=show(value.low), high=show(value.high))


class _Formatter(string.Formatter):
    def __init__(self, say: Messages) -> None:
        self.unknown = say._texts["unknown"]
        self.ways: dict[str, Callable[[Any], str]] = {
            "percent": say.percent,
            "level": say.level,
            "signed": say.signed,
            "duration": say.duration,
            "count": numbers.count,
            "whole": numbers.whole,
            "loss": lambda value: f"{value:.4f}",
            "ratio": lambda value: f"{value:.2f}",
            "bytes": lambda value: f"{value:.1f}",
            "lr": lambda value: f"{value:.2g}",
            "rate": lambda value: f"{value:.3g}",
            "one": lambda value: f"{value:,.1f}",
            "power": lambda value: f"{value:.1e}".replace("e+", "e"),
            "g": lambda value: f"{value:g}",
            "points": lambda value: numbers.signed(100 * value, 1),
            "s": lambda n: "" if n == 1 else "s",
        }

    def format_field(self, value: Any, way: str) -> str:
        if value is None:
            return self.unknown
        if way:
            return self.ways[way](value)
        # neither marks of code nor characters that steer a terminal or turn the writing round
        text = (c if c.isprintable() else " " if c.isspace() else "" for c in str(value))
        return "".join(text)

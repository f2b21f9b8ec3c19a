"""Terms are explained where they first stand in a section, and at the end of the page."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from mars_optim.experiment.analysis import analyse
from mars_optim.experiment.report import LANGS, Lang, Messages, write_report
from mars_optim.experiment.report.glossary import Marker, terms
from mars_optim.experiment.report.messages import CODE, CODE_END
from tests.support.written_pilot import EXTRAS, write_pilot

KANA_OR_KANJI = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")


def test_both_languages_explain_the_same_terms() -> None:
    english, japanese = terms("en"), terms("ja")
    assert {t.key for t in english} == {t.key for t in japanese}
    assert not any(KANA_OR_KANJI.search(t.text) for t in english)
    assert all(KANA_OR_KANJI.search(t.text) for t in japanese)


@pytest.mark.parametrize("lang", LANGS)
def test_no_form_of_a_word_belongs_to_two_terms(lang: Lang) -> None:
    forms = [form.lower() for term in terms(lang) for form in term.forms]
    assert len(forms) == len(set(forms))


def test_a_term_is_marked_once_a_section_and_the_longest_wins() -> None:
    marker = Marker("en")
    first = marker.html("Paired seeds & a seed.")
    assert first.count("<button") == 1
    assert ">Paired seeds</button> &amp; a seed." in first
    assert marker.html("a seed").count("<button") == 0
    marker.begin()
    assert marker.html("a seed").count("<button") == 1


@pytest.mark.parametrize(
    "text", ["armature", "alarm", "pre-arm", f"{CODE}arm{CODE_END}", "my arm wins", "<arm>"]
)
def test_words_code_and_names_around_a_term_are_none(text: str) -> None:
    marked = Marker("en", ["my arm"]).html(text)
    assert marked.count("<button") == (text == "<arm>")
    assert "<arm>" not in marked


def test_japanese_terms_need_no_spaces_but_latin_ones_do() -> None:
    marker = Marker("ja")
    assert ">学習率</button>を下げる" in marker.html("学習率を下げる")
    assert marker.html("alternate").count("<button") == 0
    assert marker.html("損失 nat").count("<button") == 1


@pytest.mark.slow
@pytest.mark.parametrize("lang", LANGS)
def test_every_term_of_a_page_has_its_text_in_html_and_markdown(tmp_path: Path, lang: Lang) -> None:
    out = tmp_path / "pilot"
    write_pilot(out, speedup=1.3, **EXTRAS)
    page, markdown, _ = write_report(analyse(out), out, Messages(lang))
    source, lines = page.read_text(encoding="utf-8"), markdown.read_text(encoding="utf-8")
    used = set(re.findall(r'popovertarget="term-([a-z-]+)"', source))
    assert len(used) > 20
    assert used == set(re.findall(r'popover id="term-([a-z-]+)"', source))
    for term in terms(lang):
        assert (html.escape(term.text, quote=False).replace("'", "&#39;") in source) == (
            term.key in used
        )
        colon = {"en": ": ", "ja": "\uff1a"}[lang]
        assert (f"- **{term.name}**{colon}" in lines) == (term.key in used)
    for section in source.split("<section ")[1:]:
        marked = re.findall(r'popovertarget="term-([a-z-]+)"', section)
        assert len(marked) == len(set(marked))

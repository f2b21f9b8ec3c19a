"""Terms of the page: found in its texts, explained where they first stand and at the end."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from markupsafe import Markup, escape

from .document import Bullets, Definitions, Page, Picture, Section, Table, Text
from .messages import CODE, CODE_END, Lang, Messages


@dataclass(frozen=True, slots=True)
class Term:
    """One entry.

    Args:
        key: in the glossary's file and in ids of the page.
        name: as it heads the entry.
        forms: of the term in running text.
        text: what it means, in a sentence or two.
    """

    key: str
    name: str
    forms: tuple[str, ...]
    text: str


@cache
def terms(lang: Lang) -> tuple[Term, ...]:
    """All entries of a language, in the order of the file."""
    source = files("mars_optim.experiment.report.messages") / f"glossary.{lang}.toml"
    rows = tomllib.loads(source.read_text(encoding="utf-8"))
    return tuple(Term(k, r["name"], tuple(r["forms"]), r["text"]) for k, r in rows.items())


class Marker:
    """Finds terms in texts; names of the page's own and code are passed over.

    Args:
        lang: of the texts.
        names: of arms and the like: a term inside one of them is none.
    """

    def __init__(self, lang: Lang, names: Iterable[str] = ()) -> None:
        self._of = {form.lower(): term for term in terms(lang) for form in term.forms}
        forms = [_whole(form) for form in sorted(self._of, key=len, reverse=True)]
        longest = sorted(filter(None, names), key=len, reverse=True)
        passed = [f"{CODE}[^{CODE_END}]*{CODE_END}", *map(re.escape, longest)]
        pattern = "|".join([*passed, f"(?P<term>{'|'.join(forms)})"])
        self._pattern = re.compile(pattern, re.IGNORECASE)
        self._seen: set[str] = set()

    def begin(self) -> str:
        """Begin a section: each term is marked at its first place in it. Returns no text."""
        self._seen.clear()
        return ""

    def found(self, text: str) -> Iterator[Term]:
        """Every term in a text."""
        for match in self._pattern.finditer(text):
            if match["term"]:
                yield self._of[match["term"].lower()]

    def html(self, text: str) -> Markup:
        """The text, with a button that shows what a term means at its first place."""
        parts, at = [], 0
        for match in self._pattern.finditer(text):
            if not match["term"]:
                continue
            term = self._of[match["term"].lower()]
            if term.key in self._seen:
                continue
            self._seen.add(term.key)
            parts += [inline(text[at : match.start()]), _button(term, match["term"])]
            at = match.end()
        return Markup("").join([*parts, inline(text[at:])])


def _whole(form: str) -> str:
    """A pattern of the form; where it is Latin letters, of whole words."""
    return rf"(?<![A-Za-z0-9_-]){re.escape(form)}(?![A-Za-z0-9_-])" if form.isascii() else form


def _button(term: Term, shown: str) -> Markup:
    names = ("popovertarget", "interestfor", "aria-describedby")
    target = Markup(" ").join(Markup('{}="term-{}"').format(name, term.key) for name in names)
    return Markup('<button type="button" class="term" {}>{}</button>').format(target, shown)


def inline(text: str) -> Markup:
    """Text as HTML, code marked."""
    return Markup(escape(text).replace(CODE, Markup("<code>")).replace(CODE_END, Markup("</code>")))


def with_glossary(page: Page, marker: Marker, say: Messages) -> Page:
    """The page with a last section that explains the terms that stand in it."""
    used = {term.key for text in _texts(page) for term in marker.found(text)}
    if not used:
        return page
    entries = tuple((t.key, t.name, t.text) for t in terms(say.lang) if t.key in used)
    section = Section("glossary", say("section.glossary"), (Definitions(entries),))
    return replace(page, sections=(*page.sections, section))


def _texts(page: Page) -> Iterator[str]:
    """Texts in which terms are marked."""
    yield from (page.lead, page.action, *page.reasons)
    for tile in page.tiles:
        yield tile.detail
    for section in page.sections:
        for block in section.blocks:
            if isinstance(block, Text):
                yield block.text
            elif isinstance(block, Bullets):
                yield from block.items
            elif isinstance(block, Picture):
                yield block.caption
                yield from _of_table(block.data)
            elif isinstance(block, Table):
                yield from _of_table(block)


def _of_table(table: Table) -> Iterator[str]:
    yield table.caption
    yield from table.head
    for row in table.rows:
        yield from (cell.detail for cell in row)
        if not table.head:
            yield row[0].text

"""Parts of a page, in any format: HTML and Markdown are loops over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Cell:
    """Cell of a table: a value, what qualifies it, and the arm whose colour marks it."""

    text: str
    detail: str = ""
    arm: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """The first cell of a row is its header.

    Args:
        caption: what it shows.
        head: one text per column; empty for a table of labels and values.
        rows: of cells, all as long as ``head``.
    """

    kind: ClassVar[str] = "table"
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True, slots=True)
class Heading:
    """A title within a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list under a line of its own; with ``ticks``, one box an item, ticked or not."""

    kind: ClassVar[str] = "bullets"
    items: tuple[str, ...]
    title: str = ""
    ticks: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Code:
    """Lines of code; behind ``summary``, where there is one."""

    kind: ClassVar[str] = "code"
    text: str
    summary: str = ""
    language: str = "sh"


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure, and its numbers for those who cannot see it.

    Args:
        name: of the figure.
        text: what it shows, in one line.
        caption: how to read it.
        data: the same as a table.
        svg: one element, or two that stand side by side.
    """

    kind: ClassVar[str] = "picture"
    name: str
    text: str
    caption: str
    data: Table
    svg: str


@dataclass(frozen=True, slots=True)
class Definitions:
    """Terms, each as (key of its id, name, what it means)."""

    kind: ClassVar[str] = "definitions"
    entries: tuple[tuple[str, str, str], ...]


Block = Table | Text | Heading | Bullets | Code | Picture | Definitions


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page under a title."""

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Tile:
    """One number of the first screen; ``place`` is the id of the part with its numbers."""

    label: str
    value: str
    detail: str
    place: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The whole report."""

    lang: str
    question: str
    decision: str
    title: str
    lead: str
    tiles: tuple[Tile, ...]
    reasons: tuple[str, ...]
    following: str
    sections: tuple[Section, ...]
    footer: str
    reasons_title: str = ""  # empty for the verdict's
    reason_places: tuple[str, ...] = ()  # ids of the parts with their numbers; may be empty
    action: str = ""
    numbers: Table | None = None  # behind the headline
    numbers_how: str = ""  # address of the page that says how they are computed

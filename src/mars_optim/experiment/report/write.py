"""report.html, report.md and verdict.json; for a folder of runs report.json."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ...errors import UserError
from ...files import whole_file, write_json, write_text
from ..analysis import Analysis, Shown, Survey
from ..analysis.jobs import Jobs
from .browser import find_browser, pages_of, print_to_pdf
from .document import Bullets, Page, Picture, Table, Text
from .figures.svg import standalone, titled
from .figures.theme import FONTS, colour, dark_rules
from .glossary import Marker, inline, with_glossary
from .messages import CODE, CODE_END, Messages
from .numbers import MINUS
from .verdict_json import verdict_data

SCALES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # of the page for a meeting
CAVEATS = 3


def write_report(
    analysis: Analysis, out: Path, say: Messages | None = None
) -> tuple[Path, Path, Path]:
    """Write the three files, and the figures of report.md, into ``out``.

    Args:
        analysis: of a pilot.
        out: its folder.
        say: texts of the language (default: English). Files in another language have it in their
            name, as in ``report.ja.html``; verdict.json is the same in all.

    Returns:
        Paths of report.html, report.md and verdict.json.

    Raises:
        UserError: if ``out`` cannot be written to.
    """
    from .page import build_page  # matplotlib is slow to import

    say = (say or Messages()).about(analysis.plan.decision)
    page = build_page(analysis, say, out)
    return write_page(page, analysis, out, say, "verdict.json", verdict_data(analysis))


def write_brief(analysis: Analysis, out: Path, say: Messages | None = None) -> Path:
    """Write ``report.pdf`` into ``out``, whole or not at all: one A4 page, printed by a browser.

    Args:
        analysis: of a pilot.
        out: its folder.
        say: texts of the language (default: English), in the file's name as those of the report.

    Raises:
        UserError: in one line, if there is no browser, it fails, or ``out`` cannot be written to.
    """
    from .page import build_page

    browser = find_browser()
    say = (say or Messages()).about(analysis.plan.decision)
    page = build_page(analysis, say, out)
    path = out / f"report{say.suffix}.pdf"
    for scale in SCALES:  # long names take room: smaller, until it is one page
        pdf = print_to_pdf(render_brief(page, say, scale), browser)
        if pages_of(pdf) == 1:
            break
    try:
        with whole_file(path, "wb") as file:
            file.write(pdf)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    return path


def render_brief(page: Page, say: Messages, scale: float = 1.0) -> str:
    """The page for a meeting as HTML: headline, action, numbers, picture, caveats, provenance.

    Args:
        page: the whole report.
        say: texts of the language.
        scale: of letters and picture.
    """
    blocks = {section.key: section.blocks for section in page.sections}
    picture = next((b for b in blocks.get("answer", ()) if isinstance(b, Picture)), None)
    limits = [item for b in blocks["limits"] if isinstance(b, Bullets) for item in b.items]
    told = [b.text for b in blocks["repeat"] if isinstance(b, Text)]
    return _render(
        "brief.html.j2",
        page,
        say,
        inline=inline,
        plain=_plain,
        figure=lambda shown: Markup(titled(shown.svg, shown.text, say.lang)),
        fonts=Markup(FONTS),
        scale=scale,
        picture=picture,
        caveats_title=say("section.limits"),
        caveats=[*limits, say("cost.how")][:CAVEATS],
        provenance=say.prose(told[0], page.footer),
    )


def write_runs_report(
    found: Survey, out: Path, say: Messages | None = None
) -> tuple[Path, Path, Path]:
    """As :func:`write_report`, for a folder of runs without a plan.

    Returns:
        Paths of report.html, report.md and report.json.

    Raises:
        UserError: if ``out`` cannot be written to.
    """
    from .runs_page import build_runs_page, runs_data

    say = say or Messages()
    page = build_runs_page(found, say, out)
    return write_page(page, found, out, say, "report.json", runs_data(found))


def write_jobs_report(
    found: Jobs, out: Path, say: Messages | None = None
) -> tuple[Path, Path, Path]:
    """As :func:`write_report`, for several pilots together; ``out`` is made if need be.

    Returns:
        Paths of report.html, report.md and jobs.json.

    Raises:
        UserError: if ``out`` cannot be written to.
    """
    from .jobs_page import build_jobs_page, jobs_data

    say = say or Messages()
    page = build_jobs_page(found, say)
    return write_page(page, found, out, say, "jobs.json", jobs_data(found))


def write_page(
    page: Page, shown: Shown | Survey, out: Path, say: Messages, data_name: str, data: Any
) -> tuple[Path, Path, Path]:
    """Write a page as HTML and Markdown with its figures, and its numbers as JSON.

    Args:
        page: to write.
        shown: whose arms have colours in its tables.
        out: folder.
        say: texts of the language.
        data_name: of the JSON file.
        data: to be in it.

    Raises:
        UserError: if ``out`` cannot be written to.
    """
    suffix = say.suffix
    paths = (out / f"report{suffix}.html", out / f"report{suffix}.md", out / data_name)
    pictures = {b.name: b for s in page.sections for b in s.blocks if isinstance(b, Picture)}
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            svg = standalone(titled(picture.svg, picture.text, say.lang))
            write_text(out / "figures" / f"{name}{suffix}.svg", svg)
        write_text(paths[0], render_html(page, shown, say))
        write_text(paths[1], render_markdown(page, shown, say))
        write_json(paths[2], data)
    except OSError as error:
        raise UserError(f"{out}: the report cannot be written: {error.strerror}") from None
    return paths


def render_html(page: Page, shown: Shown | Survey, say: Messages) -> str:
    """The page as one self-contained HTML file, without script."""
    marker = Marker(say.lang, names_of(shown))
    page = with_glossary(page, marker, say)
    experiments = shown.experiments if isinstance(shown, Survey) else (shown,)
    # in a folder of several experiments, an arm's name is looked up with its experiment's number
    colours = {
        f"{arm.name}#{i}" if i else arm.name: colour(experiment, arm)
        for i, experiment in enumerate(experiments)
        for arm in experiment.arms
    }
    return _render(
        "report.html.j2",
        page,
        say,
        inline=inline,
        marked=marker.html,
        begin=marker.begin,
        csv=csv_address,
        plain=_plain,
        # our own SVG, escaped where it was made
        figure=lambda picture: Markup(titled(picture.svg, picture.text, say.lang)),
        colours=colours,
        dark_rules=Markup(dark_rules()),
        fonts=Markup(FONTS),
    )


def render_markdown(page: Page, shown: Shown | Survey, say: Messages) -> str:
    """The page as Markdown, its figures beside it."""
    page = with_glossary(page, Marker(say.lang, names_of(shown)), say)
    return _render("report.md.j2", page, say, inline=_markdown, suffix=say.suffix)


def _render(template: str, page: Page, say: Messages, **tools: Any) -> str:
    environment = Environment(
        loader=PackageLoader("mars_optim.experiment.report"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(page=page, say=say, **tools)


def names_of(shown: Shown | Survey) -> set[str]:
    """Names of the page's arms, which are no terms even where they read like one."""
    experiments = shown.experiments if isinstance(shown, Survey) else (shown,)
    return {arm.name for experiment in experiments for arm in experiment.arms}


def csv_address(table: Table, say: Messages) -> str:
    """The table as CSV, in an address that a browser saves as a file."""
    columns = list(zip(*table.rows, strict=True))
    head = table.head or ("", "")
    named: list[list[str]] = []
    for name, cells in zip(head, columns, strict=False):
        named.append([name, *(cell.text for cell in cells)])
        if any(cell.detail for cell in cells):
            named.append([say("csv.detail", head=name), *(cell.detail for cell in cells)])
    text = io.StringIO()
    rows = zip(*named, strict=True)
    csv.writer(text, lineterminator="\n").writerows([map(_csv_cell, row) for row in rows])
    return f"data:text/csv;charset=utf-8,{quote(text.getvalue())}"


def _csv_cell(text: str) -> str:
    """A number that programs read; what a spreadsheet would take for a formula is text."""
    text = _plain(text).replace(MINUS, "-")
    formula = text[:1] in "=+-@\t" and not re.fullmatch(r"[+-][\d., %]+", text)
    return f"'{text}" if text and formula else text


def _plain(text: str) -> str:
    return text.replace(CODE, "").replace(CODE_END, "")


def _markdown(text: str) -> str:
    """Everything but code is escaped; in a table, that must hold for code's bars too."""
    parts = re.split(f"{CODE}([^{CODE_END}]*){CODE_END}", " ".join(text.split()))
    escaped = [re.sub(r"([\\`*_\[\]<>|&~$#])", r"\\\1", part) for part in parts]
    escaped[1::2] = [
        f"`{part.replace('`', '').replace('|', chr(92) + '|')}`" for part in parts[1::2]
    ]
    return "".join(escaped)
